"""``nri-restore node configure`` on real nodes: containerd takes it, restores by it, and nothing of it stays."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from shared.contract import HANDLER
from shared.errors import CommandFailed
from tests.e2e.node import containerd_config as config
from tests.e2e.node.counter import printed
from tests.e2e.node.cri import CriError
from tests.e2e.node.kubelet import RUNNING, Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import DAEMON_CONFIGURATION, PYTHON_PATH, Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import FLAVOURS
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.restoring import KEEPS_NOTHING, Images, Taken, have, resumed, with_daemon

EVERY = [(flavour, drop_in) for flavour in FLAVOURS for drop_in in ([False, True])]
ONE_EACH = [("containerd-1.7", False), ("containerd-2.1", True)]


@pytest.fixture
def bare(request: pytest.FixtureRequest, network: Network, registry: Registry, busybox: str) -> Iterator[Node]:
    """A node whose containerd knows nothing of us; where it is asked for, with a folder of imports."""
    flavour, drop_in = request.param
    node = Node(flavour, network, "bare")
    text = config.unconfigured(flavour)
    if drop_in:
        text = text.replace("\n[", "\nimports = ['/etc/containerd/conf.d/*.toml']\n[", 1)
    node.files[config.MAIN] = text
    with node:
        node.trust(registry, "localhost:5000")
        node.relay(registry)
        node.cri.pull_image(busybox)
        yield node


def nri_restore(node: Node, *words: str) -> str:
    command = ["/usr/bin/python3", "-m", "nri_plugin.cli", "node", *words]
    env = {"PYTHONPATH": PYTHON_PATH, "PYTHONPYCACHEPREFIX": "/var/cache/python"}
    return node.run(command, env=env, timeout_s=300).stdout


def ill(node: Node) -> set[str]:
    """Checks of the doctor that fail; its exit status says the same."""
    command = ["/usr/bin/python3", "-m", "nri_plugin.cli", "node", "doctor", "-o", "json"]
    done = node.run(command, env={"PYTHONPATH": PYTHON_PATH}, timeout_s=90, check=False)
    found = json.loads(done.stdout)
    assert done.returncode == max(["ok", "warn", "fail"].index(each["level"]) for each in found), done.stderr
    assert all(each["fix"] for each in found if each["level"] != "ok")
    return {each["check"] for each in found if each["level"] == "fail"}


def dump(node: Node) -> dict[str, Any]:
    return tomllib.loads(node.sh("containerd config dump 2>/dev/null"))


def etc(node: Node) -> str:
    return node.sh(
        "find /etc/containerd /etc/nri-restore /var/lib/nri-restore ! -type s | sort; cat /etc/containerd/config.toml"
    )


@pytest.mark.parametrize("bare", EVERY, indirect=True, ids=str)
def test_configure_restore_and_unconfigure(
    bare: Node, kubelet_of: Callable[[Node], Kubelet], own_checkpoint: Taken, images: Images, busybox: str
) -> None:
    node, kubelet = bare, kubelet_of(bare)
    before, files = dump(node), etc(node)
    ordinary = kubelet.run_pod(PodSpec("ordinary")).run(ContainerSpec(busybox, command=("sleep", "1000")))

    assert ill(node) >= {"nri", "handler", "daemon"}
    shown = nri_restore(node, "configure", "--wrapper", config.WRAPPER, "--dry-run")
    assert f'+[plugins."{config.CRI[node.flavour]}".containerd.runtimes.nri-restore]' in shown
    assert etc(node) == files, "a dry run writes nothing"
    assert "restart the container runtime" in nri_restore(node, "configure", "--wrapper", config.WRAPPER)
    node.restart_containerd()

    after = dump(node)
    runtimes = after["plugins"][config.CRI[node.flavour]]["containerd"]["runtimes"]
    entry = runtimes.pop(HANDLER)
    assert (entry["runtime_type"], entry["options"]["BinaryName"]) == ("io.containerd.runc.v2", config.WRAPPER)
    assert entry["pod_annotations"] == [f"{HANDLER}/*"]
    assert after["plugins"]["io.containerd.nri.v1.nri"].pop("disable") is False
    assert before["plugins"]["io.containerd.nri.v1.nri"].pop("disable") is True
    assert after == before, "nothing else is different"
    assert nri_restore(node, "configure", "--wrapper", config.WRAPPER) == "nothing to change\n"
    assert "runtime=runc\n" in node.sh("cat /etc/nri-restore/restore-runc.conf")

    assert "daemon" in ill(node)
    with_daemon(node, KEEPS_NOTHING)
    assert ill(node) == set()
    image = images.of(own_checkpoint, "layered")
    have(node, image)
    container = resumed(kubelet, own_checkpoint, image, "image", "after-configure")
    container.wait_for(lambda each: len(printed(each)) > len(own_checkpoint.logged) + 1, "new numbers")
    assert ordinary.state == RUNNING
    container.stop(grace_s=0)
    container.pod.remove(grace_s=0)
    kubelet.pods.remove(container.pod)
    node.stop_daemon()
    node.path("/etc/nri-restore/config.toml").write_text("")

    assert "removed /etc/nri-restore/restore-runc.conf" in nri_restore(node, "unconfigure")
    node.restart_containerd()
    node.sh("rm -rf /var/lib/nri-restore/*; rmdir /var/lib/nri-restore 2>/dev/null || :")
    assert etc(node) == files
    assert dump(node)["plugins"]["io.containerd.nri.v1.nri"]["disable"] is True
    assert ordinary.state == RUNNING


@pytest.mark.parametrize("bare", ONE_EACH, indirect=True, ids=str)
def test_as_the_default_runtime(
    bare: Node, kubelet_of: Callable[[Node], Kubelet], own_checkpoint: Taken, images: Images, busybox: str
) -> None:
    node, kubelet = bare, kubelet_of(bare)
    cri, files = config.CRI[node.flavour], etc(node)
    before = kubelet.run_pod(PodSpec("before")).run(ContainerSpec(busybox, command=("sleep", "1000")))
    nri_restore(node, "configure", "--wrapper", config.WRAPPER, "--default-runtime")
    written = node.path(DAEMON_CONFIGURATION).read_text()
    node.restart_containerd()
    assert dump(node)["plugins"][cri]["containerd"]["default_runtime_name"] == HANDLER
    layered, archive = images.of(own_checkpoint, "layered"), images.of(own_checkpoint, "archive")
    have(node, layered, archive, own_checkpoint.base)

    # With the daemon stopped: what is ordinary runs, a checkpoint starts as nothing else.
    ordinary = kubelet.run_pod(PodSpec("ordinary")).run(ContainerSpec(busybox, command=("sleep", "1000")))
    assert ordinary.sh("echo here").strip() == "here"
    for image in (layered, archive):
        with pytest.raises(CriError, match="NotPrepared: the nri-restore daemon was not asked"):
            resumed(kubelet, own_checkpoint, image, "image", f"down-{image.rpartition(':')[2]}", handler="")
    with pytest.raises(CriError, match="NotPrepared: the nri-restore daemon was not asked"):
        resumed(kubelet, own_checkpoint, layered, "annotation", "down-annotation", handler="")

    with_daemon(node, KEEPS_NOTHING + written)
    second = kubelet.run_pod(PodSpec("second")).run(ContainerSpec(busybox, command=("sleep", "1000")))
    assert second.sh("echo here").strip() == "here"
    for image, mode in ((layered, "image"), (archive, "annotation")):
        container = resumed(kubelet, own_checkpoint, image, mode, f"up-{mode}", handler="")
        container.wait_for(lambda each: len(printed(each)) > len(own_checkpoint.logged) + 1, "new numbers")
    listed = node.run(["/usr/bin/python3", "-m", "nri_plugin.cli", "list"], env={"PYTHONPATH": PYTHON_PATH}).stdout
    assert ("up-image" in listed, "second" in listed) == (True, False), "ordinary containers are no restores"
    assert [each.state for each in (before, ordinary, second)] == [RUNNING] * 3
    node.stop_daemon()
    node.path(DAEMON_CONFIGURATION).write_text(written)

    with pytest.raises(CommandFailed, match=r"HandlerInUse: .* were made through restore-runc"):
        nri_restore(node, "unconfigure")
    nri_restore(node, "configure", "--wrapper", config.WRAPPER)
    node.restart_containerd()
    third = kubelet.run_pod(PodSpec("third")).run(ContainerSpec(busybox, command=("sleep", "1000")))
    assert second.sh("echo here").strip() == "here", "what was made through the handler is still served"
    for each in [pod for pod in kubelet.pods if pod.spec.name not in {"before", "third"}]:
        each.remove(grace_s=0)
        kubelet.pods.remove(each)
    nri_restore(node, "unconfigure")
    node.restart_containerd()
    node.sh("rm -rf /var/lib/nri-restore/*; rmdir /var/lib/nri-restore 2>/dev/null || :")
    assert etc(node) == files
    assert dump(node)["plugins"][cri]["containerd"]["default_runtime_name"] == "runc"
    assert [each.state for each in (before, third)] == [RUNNING] * 2
