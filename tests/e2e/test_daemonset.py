"""The DaemonSet's pod on a node without Python: its containers and probes as the rendered manifests say.

Install, restore, upgrade under a running restored container, and uninstall; on one with the handler as the default.
"""

from __future__ import annotations

import json
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import grpc
import pytest
import yaml

from nri_plugin.daemonset.__main__ import DEFAULT_RUNTIME
from shared.contract import HANDLER
from shared.run import run
from tests.e2e.kubectl import kubectl
from tests.e2e.node.counter import count, counts_without_gap, printed
from tests.e2e.node.cri import CriError
from tests.e2e.node.inventory import COLLECTED_S
from tests.e2e.node.kubelet import RUNNING, Container, Kubelet, Pod
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.places import CHECKOUT
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec
from tests.e2e.node.systemd_node import SystemdNode
from tests.e2e.node.waiting import wait_for
from tests.e2e.pod_manifests import planned
from tests.e2e.restoring import Images, Taken, have, local, resumed
from tests.e2e.test_package import everything, store
from tests.e2e.test_package import taken as taken  # a fixture
from tools.image import name_of

Object = dict[str, Any]
PROGRAM = "/opt/nri-restore/current/bin/nri-restore"


@pytest.fixture(scope="session")
def image(registry: Registry) -> str:
    """The daemon's image as `make image` builds and pushes it, on the Debian root that is there already."""
    words = ["--base", base_root("containerd-1.7"), "--reference", f"{registry.address}/nri-restore:1"]
    env = {"PYTHONPATH": str(CHECKOUT), "HOME": "/root", "PATH": "/usr/bin:/bin"}
    run([sys.executable, "-m", "tools.image", *words, "--push", "--plain-http"], timeout_s=300, env=env)
    return local("nri-restore:1")


@pytest.fixture
def fresh(request: pytest.FixtureRequest, network: Network, registry: Registry, busybox: str) -> Iterator[SystemdNode]:
    """A node that has neither Python nor anything of ours."""
    with SystemdNode(request.param, network, "daemonset") as node:
        node.trust(registry, "localhost:5000")
        node.relay(registry)
        node.cri.pull_image(busybox)
        node.sh("rm -rf /usr/bin/python3* /usr/lib/python3*; ! command -v python3")
        node.sh("umount /opt/nri-restore/*; rmdir /opt/nri-restore/* /opt/nri-restore")
        yield node


def rendered(name: str) -> dict[str, Object]:
    """What `kubectl apply -k` would send, by kind."""
    text = run([kubectl(), "kustomize", CHECKOUT / "packaging/kubernetes" / name], timeout_s=300).stdout
    return {each["kind"]: each for each in yaml.safe_load_all(text)}


def default_runtime(node: SystemdNode) -> str:
    (line,) = {each for each in node.sh("containerd config dump").splitlines() if "default_runtime_name =" in each}
    return line.partition("=")[2].strip(" '\"")


class DaemonPod:
    """A pod of the rendered DaemonSet, made as the kubelet makes it."""

    def __init__(self, kubelet: Kubelet, name: str, image: str, files: Mapping[str, str], *options: str) -> None:
        self.node = kubelet.node
        template = rendered(name)["DaemonSet"]["spec"]["template"]
        self.spec = template["spec"]
        for each in [*self.spec["initContainers"], *self.spec["containers"]]:
            each["image"] = image
        self.spec["initContainers"][0]["args"] += options
        metadata = {"name": f"nri-restore-{name}", "namespace": "nri-restore", "uid": str(uuid.uuid4())}
        plan = planned({"metadata": metadata, "spec": self.spec}, "", lambda kind, name: {"data": dict(files)})
        have(self.node, image)
        self.pod: Pod = kubelet.run_pod(plan.pod)
        for volume, contents in plan.files.items():
            folder = self.node.path(f"{plan.pod.folder}/volumes/kubernetes.io~empty-dir/{volume}")
            folder.mkdir(parents=True)
            for file, content in contents.items():
                (folder / file).write_bytes(content)
        (self.init,), (self.main,) = plan.init, plan.containers

    def initialised(self, attempt: int = 0) -> tuple[int, str]:
        """Exit code and log of the init container, during which the runtime may be away."""
        container = self.pod.run(self.init, attempt)
        while True:
            try:
                return container.wait_exit(60).exit_code, "\n".join(container.logs())
            except CriError as error:
                assert error.code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.UNKNOWN}, error.details

    def started(self) -> Container:
        """The main container, once its probes succeed."""
        container = self.pod.run(self.main)
        for probe in ("readinessProbe", "livenessProbe"):
            command = self.spec["containers"][0][probe]["exec"]["command"]
            wait_for(lambda: container.exec(*command).exit_code == 0, f"{probe} ({container.logs()})")  # noqa: B023
        return container

    def end(self, kubelet: Kubelet) -> None:
        """As the kubelet ends a pod: preStop, then SIGTERM."""
        container = next((each for each in self.pod.containers if each.spec is self.main), None)
        hook = self.spec["containers"][0].get("lifecycle", {}).get("preStop")
        if hook and container:
            assert container.exec(*hook["exec"]["command"]).exit_code == 0
            container.stop(grace_s=10)
            assert container.status().exit_code == 0, container.logs()
        self.pod.remove(grace_s=0)
        kubelet.pods.remove(self.pod)


@pytest.mark.parametrize(
    ("fresh", "options"),
    [("containerd-1.7", ()), ("containerd-2.1", (DEFAULT_RUNTIME,))],
    indirect=["fresh"],
    ids=["containerd-1.7", "default runtime of containerd-2.1"],
)
def test_install_restore_upgrade_and_uninstall_by_the_daemonset(
    fresh: SystemdNode,
    options: tuple[str, ...],
    taken: Taken,
    kubelet_of: Callable[[Node], Kubelet],
    images: Images,
    image: str,
    busybox: str,
) -> None:
    node, kubelet = fresh, kubelet_of(fresh)
    ordinary = kubelet.run_pod(PodSpec("ordinary")).run(ContainerSpec(busybox, command=("sleep", "1000")))
    before, stored = everything(node), store(node)

    first = DaemonPod(kubelet, "base", image, {"config.toml": "# none\n"}, *options)
    code, said = first.initialised()
    assert (code, "restarted containerd" in said) == (0, True), said
    assert default_runtime(node) == (HANDLER if options else "runc")
    daemon = first.started()
    doctor = node.run([PROGRAM, "node", "doctor", "-o", "json"], check=False, timeout_s=300)
    assert [each for each in json.loads(doctor.stdout) if each["level"] == "fail"] == []

    assert "/var/log/nri-restore 0700 root root 30d" in node.sh("systemd-tmpfiles --cat-config")

    checkpoint = images.of(taken, "archive")
    have(node, checkpoint)
    container = resumed(kubelet, taken, checkpoint, "annotation", "restored")
    container.wait_for(lambda each: len(printed(each)) > len(taken.logged) + 1, "new numbers")
    assert counts_without_gap(container)
    assert f"default/restored   {taken.spec.name}" in daemon.exec("nri-restore", "list").stdout

    # What an upgrade finds: a tree of another name.
    first.end(kubelet)
    tree = node.path("/opt/nri-restore/current").readlink().name
    assert name_of(node.path(f"/opt/nri-restore/{tree}")) == tree, "whole, and what runs writes nothing there"
    node.sh(f"cd /opt/nri-restore && mv {tree} 0.0.9-old && ln -sfn 0.0.9-old current")
    second = DaemonPod(kubelet, "base", image, {"config.toml": "[cache]\nunused = 4\n"}, *options)
    code, said = second.initialised()
    assert (code, "restarted" in said) == (0, False), said
    assert "changed /etc/nri-restore/config.toml" in said
    assert node.sh("ls /opt/nri-restore; readlink /opt/nri-restore/current").split() == [tree, "current", tree]
    second.started()
    seen = count(container)
    container.wait_for(lambda each: count(each) > seen, "the counter to go on over the upgrade")
    second.end(kubelet)

    given_back = DaemonPod(kubelet, "base", image, {})
    code, said = given_back.initialised()
    assert (code, "restarted containerd" in said, default_runtime(node)) == (0, bool(options), "runc"), said
    given_back.end(kubelet)

    last = DaemonPod(kubelet, "uninstall", image, {})
    code, said = last.initialised()
    assert (code, "HandlerInUse" in said) == (1, True), said
    container.stop(grace_s=10)
    assert container.status().exit_code == 3
    container.pod.remove(grace_s=0)
    kubelet.pods.remove(container.pod)
    assert store(node) != stored, "what the next restore would use"
    code, said = last.initialised(attempt=1)
    assert (code, "is gone from this node" in said) == (0, True), said
    assert last.pod.run(last.main).state == RUNNING
    last.end(kubelet)
    after = everything(node)
    assert {each for each in {*before, *after} if before.get(each) != after.get(each)} == set()
    wait_for(lambda: store(node) == stored, "the runtime to have nothing of ours", timeout_s=COLLECTED_S)
    assert node.sh("ls -d /run/nri-restore* 2>/dev/null || :") == ""
    assert ordinary.state == RUNNING
