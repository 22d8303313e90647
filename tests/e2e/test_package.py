"""The deb on a fresh node of each flavour: install, configure, restore, upgrade meanwhile, remove, purge."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from shared.run import run
from tests.e2e.node import containerd_config as config
from tests.e2e.node.counter import count, printed
from tests.e2e.node.dependencies import python_version
from tests.e2e.node.kubelet import RUNNING, Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import CONTAINERD_LOG, Node
from tests.e2e.node.places import CHECKOUT
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import FLAVOURS, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Images, Taken, have, resumed
from tests.e2e.test_node_configure import CRI, MAIN, unconfigured


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The deb of this checkout, built as `make package` does, for the nodes' Pythons only."""
    out = tmp_path_factory.mktemp("package")
    words = ["--format", "deb", "--package", "nri-restore", "--out", out, "--compress", "fast"]
    for flavour in FLAVOURS:
        words += ["--python", python_version(base_root(flavour))]
    env = {"PYTHONPATH": str(CHECKOUT), "HOME": "/root", "PATH": "/usr/bin:/bin"}
    run([sys.executable, "-m", "tools.package", *words], timeout_s=400, env=env)
    (deb,) = out.glob("*.deb")
    return deb


@pytest.fixture(params=FLAVOURS)
def fresh(request: pytest.FixtureRequest, network: Network, registry: Registry, busybox: str) -> Iterator[Node]:
    """A node that has never heard of us; the checkout that test nodes see is hidden."""
    node = Node(request.param, network, "fresh")
    node.files[MAIN] = unconfigured(config.configuration(request.param), CRI[request.param])
    del node.files["/etc/nri-restore/config.toml"]
    with node:
        node.trust(registry, "localhost:5000")
        node.relay(registry)
        node.cri.pull_image(busybox)
        node.sh(f"rm {config.WRAPPER}; rmdir /etc/nri-restore 2>/dev/null || :")
        node.sh("mount -t tmpfs tmpfs /opt/nri-restore")
        yield node


def everything(node: Node) -> set[str]:
    """Every file of the system, but logs, what Debian's package database notes, and the runtime's own state."""
    found = node.sh(
        "find / -xdev \\( -path /proc -o -path /var/log -o -path /var/lib/dpkg -o -path /var/lib/containerd "
        "-o -path /var/lib/kubelet -o -path /var/lib/cni -o -path /tmp -o -path /root \\) -prune -o -print; cat " + MAIN
    )
    return set(found.splitlines())


def started(node: Node) -> Program:
    """The installed daemon, as its unit starts it, once NRI knows it."""

    def connections() -> int:
        return node.path(CONTAINERD_LOG).read_text(errors="replace").count("90-nri-restore")

    before = connections()
    daemon = node.spawn(["/usr/bin/nri-restore", "run"], "/var/log/nri-restore-daemon.log")
    wait_for(lambda: connections() > before or not daemon.running, "the daemon to be connected")
    assert daemon.running, daemon.output()
    return daemon


def test_install_configure_restore_upgrade_and_remove(
    fresh: Node,
    kubelet_of: Callable[[Node], Kubelet],
    own_checkpoint: Taken,
    images: Images,
    package: Path,
    busybox: str,
) -> None:
    node, kubelet = fresh, kubelet_of(fresh)
    ordinary = kubelet.run_pod(PodSpec("ordinary")).run(ContainerSpec(busybox, command=("sleep", "1000")))
    before = everything(node)
    node.path("/tmp/nri-restore.deb").write_bytes(package.read_bytes())
    install = "dpkg --install --force-depends /tmp/nri-restore.deb 2>&1"
    node.sh(install, timeout_s=120)
    assert node.sh("nri-restore version") == "nri-restore 0.1.0\n"
    node.sh("nri-restore node configure")
    node.restart_containerd()
    daemon = started(node)
    assert "/usr/lib/nri-restore/site-packages" in Path(f"/proc/{daemon.pid}/environ").read_text()

    image = images.of(own_checkpoint, "layered")
    have(node, image)
    container = resumed(kubelet, own_checkpoint, image, "image", "installed")
    container.wait_for(lambda each: len(printed(each)) > len(own_checkpoint.logged) + 1, "new numbers")
    assert printed(container) == list(range(1, len(printed(container)) + 1))

    node.sh(install, timeout_s=120)
    daemon.stop()
    daemon = started(node)
    seen = count(container)
    container.wait_for(lambda each: count(each) > seen, "the counter to go on over the upgrade")
    refused = node.run(["dpkg", "--remove", "nri-restore"], check=False, timeout_s=60)
    assert refused.returncode != 0
    assert "delete their pods first" in refused.stderr
    container.stop(grace_s=10)
    assert container.status().exit_code == 3
    container.pod.remove(grace_s=0)
    kubelet.pods.remove(container.pod)
    wait_for(lambda: not node.sh("ls -d /run/nri-restore/*/restored 2>/dev/null || :"), "the plan to be removed")

    daemon.stop()
    node.sh("dpkg --remove nri-restore && dpkg --purge nri-restore", timeout_s=60)
    node.restart_containerd()
    node.sh("rm -rf /run/nri-restore")
    assert {each for each in everything(node) ^ before if "/run/" not in each} == set()
    assert ordinary.state == RUNNING
