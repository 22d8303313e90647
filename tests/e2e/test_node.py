"""The test nodes themselves: they behave as nodes do, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import grpc
import pytest

from nri_plugin.containerd import cri_pb2 as cri
from shared.errors import Unavailable
from tests.e2e.node import cgroups
from tests.e2e.node.apt import mirror_of
from tests.e2e.node.containerd_config import WRAPPER
from tests.e2e.node.counter import DELETED, count, counter, printed, running_counter, take_checkpoint
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import busybox_image
from tests.e2e.node.inventory import settled
from tests.e2e.node.kubelet import EXITED, RUNNING, Kubelet
from tests.e2e.node.machine import Machine
from tests.e2e.node.network import Network, port_of
from tests.e2e.node.node import Node
from tests.e2e.node.places import CHECKOUT, claim, runs
from tests.e2e.node.processes import identity
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.node.specs import SERVICE_ACCOUNT, ContainerSpec, PodSpec, VolumeMount
from tests.e2e.node.sweep import sweep, sweep_now, sweeping
from tests.e2e.node.waiting import wait_for


def test_versions_are_those_the_flavours_promise(node: Node) -> None:
    version = node.cri.version()
    assert version.runtime_name == "containerd"
    assert node.flavour == f"containerd-{'.'.join(version.runtime_version.removeprefix('v').split('.')[:2])}"
    assert "Version: 4.2" in node.sh("criu --version")


def test_machine_has_its_own_processes_hostname_and_network(node: Node) -> None:
    assert node.sh("hostname").strip() == node.hostname
    assert int(node.sh("ls -d /proc/[0-9]* | wc -l")) < 30
    assert "node-init" in node.sh("cat /proc/1/cmdline")
    assert node.sh("ls /sys/class/net").split()[-2:] == ["eth0", "lo"] or "cni0" in node.sh("ls /sys/class/net")
    assert node.sh("cat /proc/self/cgroup | cut -d: -f3 | sort -u").split() in (["/"], ["/init"])


def test_orphans_are_reaped(node: Node) -> None:
    node.sh("for i in 1 2 3; do (sleep 0.01 &) ; done")
    wait_for(lambda: not [line for line in node.sh("ps -eo stat,ppid").splitlines() if line[0] == "Z"], "no zombies")


def test_program_can_be_paused_resumed_and_killed_while_paused(node: Node) -> None:
    program = node.spawn(["sh", "-c", "while :; do echo tick; sleep 0.01; done"], "/var/log/ticking")
    wait_for(lambda: "tick" in program.output(), "the first tick")
    program.pause()
    time.sleep(0.05)
    ticks = len(program.output())
    time.sleep(0.2)
    assert len(program.output()) == ticks
    program.resume()
    wait_for(lambda: len(program.output()) > ticks, "another tick")
    program.pause()
    time.sleep(0.05)
    assert program.kill() == -signal.SIGKILL


def test_checkout_is_read_only_and_importable_by_the_nodes_python(node: Node) -> None:
    assert node.run(["touch", "/opt/nri-restore/checkout/x"], check=False).returncode != 0
    path = "/opt/nri-restore/dependencies:/opt/nri-restore/checkout"
    modules = "grpc, google.protobuf, typer, zstandard, rich, urllib3, shared.errors"
    node.run(["python3", "-c", f"import {modules}"], env={"PYTHONPATH": path})
    assert node.sh(f"readlink {WRAPPER}").startswith("/opt/nri-restore/checkout/")


def test_ordinary_pod_runs_logs_execs_and_is_measured(node: Node, kubelet: Kubelet, busybox: str) -> None:
    container = running_counter(kubelet, counter(busybox))
    assert printed(container)[:3] == [1, 2, 3]
    assert {line.stream for line in container.log()} == {"stdout"}
    assert count(container) >= 3
    assert container.exec("sh", "-c", "echo out; echo err >&2; exit 7") == type(container.exec("true"))(
        "out\n", "err\n", 7
    )
    assert "sh -c" in container.sh("cat /proc/1/cmdline | tr '\\0' ' '")
    assert container.stats().memory.working_set_bytes.value > 0
    container.update(cri.LinuxContainerResources(memory_limit_in_bytes=64 << 20, memory_swap_limit_in_bytes=64 << 20))
    container.stop(grace_s=10)
    assert container.status().exit_code == 3
    assert container.logs()[-1] == "bye"


def test_pod_gets_what_the_kubelet_gives(node: Node, kubelet: Kubelet, busybox: str) -> None:
    spec = PodSpec("dressed", annotations={"example.org/key": "value"}, labels={"app": "x"})
    pod = kubelet.run_pod(spec)
    container = pod.run(
        ContainerSpec(busybox, command=("sleep", "100"), env={"A": "b"}, mounts=(VolumeMount("/cache", "cache"),))
    )
    assert container.sh("hostname").strip() == "dressed"
    assert sorted(container.sh(f"ls {SERVICE_ACCOUNT}").split()) == ["ca.crt", "namespace", "token"]
    assert "Kubernetes-managed" in container.sh("cat /etc/hosts")
    container.sh("echo last words > /dev/termination-log; touch /cache/file")
    assert container.termination_message() == "last words\n"
    assert container.exec("touch", f"{SERVICE_ACCOUNT}/x").exit_code != 0
    assert container.sh("echo $A $KUBERNETES_SERVICE_HOST").split() == ["b", "10.96.0.1"]
    status = container.status()
    assert status.annotations["io.kubernetes.container.restartCount"] == "0"
    assert status.labels["io.kubernetes.pod.uid"] == spec.uid
    assert status.log_path == f"{spec.log_directory}/main/0.log"


def test_pod_network_reaches_the_node_and_the_registry(
    node: Node, kubelet: Kubelet, busybox: str, registry: Registry
) -> None:
    pod = kubelet.run_pod(PodSpec("net"))
    container = pod.run(
        ContainerSpec(busybox, command=("sh", "-c", "echo hello > /tmp/x; exec httpd -f -p 80 -h /tmp"))
    )
    assert pod.ip.startswith("10.88.")
    fetch = f"import urllib.request; print(urllib.request.urlopen('http://{pod.ip}/x', timeout=300).read())"
    wait_for(lambda: "hello" in node.run(["python3", "-c", fetch], check=False).stdout, "the pod's web server")
    assert container.exec("wget", "-q", "-O", "-", f"http://{registry.address}/v2/").exit_code == 0


def test_pod_in_the_nodes_network_has_the_nodes_address(node: Node, kubelet: Kubelet, busybox: str) -> None:
    pod = kubelet.run_pod(PodSpec("host", host_network=True))
    container = pod.run(ContainerSpec(busybox, command=("sleep", "100")))
    assert node.address in container.sh("ip addr show eth0")
    assert container.sh("hostname").strip() == node.hostname


def test_pod_in_another_cgroup_parent(node: Node, kubelet: Kubelet, busybox: str) -> None:
    pod = kubelet.run_pod(PodSpec("elsewhere", cgroup_parent="/kubepods/guaranteed/own"))
    container = pod.run(ContainerSpec(busybox, command=("sleep", "100")))
    assert f"/kubepods/guaranteed/own/{container.id}" in node.sh("cat /proc/$(pgrep -xf 'sleep 100')/cgroup")


def test_restart_is_the_next_attempt_with_its_own_log(node: Node, kubelet: Kubelet, busybox: str) -> None:
    pod = kubelet.run_pod(PodSpec("again"))
    first = pod.run(ContainerSpec(busybox, command=("sh", "-c", "echo hello; exit 5")))
    assert first.wait_exit().exit_code == 5
    second = pod.restart(first)
    second.wait_exit()
    assert (second.attempt, second.logs()) == (1, ["hello"])
    assert second.status().metadata.attempt == 1


def test_failed_call_keeps_code_and_sentence(node: Node, kubelet: Kubelet, busybox: str) -> None:
    pod = kubelet.run_pod(PodSpec("bad"))
    with pytest.raises(CriError) as failure:
        pod.run(ContainerSpec(busybox, command=("/nonexistent",)))
    assert failure.value.method == "StartContainer"
    assert "/nonexistent" in failure.value.details
    assert pod.containers[0].state == EXITED
    with pytest.raises(CriError) as missing:
        node.cri.container_status("0" * 64)
    assert missing.value.code is grpc.StatusCode.NOT_FOUND


def test_deadline_ends_a_call(node: Node, kubelet: Kubelet, busybox: str) -> None:
    container = kubelet.run_pod(PodSpec("slow")).run(ContainerSpec(busybox, command=("sleep", "100")))
    with pytest.raises(CriError) as failure:
        node.cri.exec_sync(container.id, ["sleep", "10"], deadline_s=0.3)
    assert failure.value.code is grpc.StatusCode.DEADLINE_EXCEEDED


def test_removal_leaves_nothing(node: Node, kubelet: Kubelet, busybox: str) -> None:
    before = node.inventory()
    running_counter(kubelet, counter(busybox))
    kubelet.run(PodSpec("other", host_network=True), ContainerSpec(busybox, command=("sleep", "100")))
    there = node.inventory().beyond(before)
    assert {"mounts", "processes", "cgroups", "containers", "tasks", "snapshots", "files", "firewall"} <= set(there)
    kubelet.remove_all()
    assert settled(node, before) == {}


def test_containers_survive_a_restart_and_a_crash_of_containerd(node: Node, kubelet: Kubelet, busybox: str) -> None:
    container = running_counter(kubelet, counter(busybox))
    node.restart_containerd()
    assert container.state == RUNNING
    node.kill_containerd()
    node.start_containerd()
    assert container.state == RUNNING
    seen = count(container)
    container.wait_for(lambda each: count(each) > seen, "the counter to go on")


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_plain_handlers_run_pods(node: Node, kubelet: Kubelet, busybox: str, handler: str) -> None:
    pod = kubelet.run_pod(PodSpec("plain", handler=handler))
    container = pod.run(ContainerSpec(busybox, command=("sleep", "100")))
    assert container.sh("echo works") == "works\n"


def test_two_nodes_pull_from_one_registry_and_see_each_other(node_17: Node, node_21: Node, busybox: str) -> None:
    for node, other in ((node_17, node_21), (node_21, node_17)):
        assert node.cri.image_status(busybox) is not None
        node.run(["ping", "-c", "1", "-W", "10", other.address])


def test_image_recorded_under_another_registrys_name_can_be_pulled(node: Node, registry: Registry) -> None:
    image = busybox_image(base_root(node.flavour), {"etc/only-here": b""})
    registry.push(image, "recorded:1")
    recorded = f"localhost:5000/recorded@{image.digest}"
    node.cri.pull_image(recorded)
    assert node.cri.image_status(recorded) is not None
    node.cri.remove_image(recorded)
    assert node.cri.image_status(recorded) is None


def test_checkpoint_through_the_cri_of_containerd_21(
    node_21: Node, kubelet_of: Callable[[Node], Kubelet], busybox: str
) -> None:
    container = running_counter(kubelet_of(node_21), counter(busybox))
    archive = take_checkpoint(node_21, container)
    with tarfile.open(node_21.path(archive)) as tar:
        names = {name.removeprefix("./") for name in tar.getnames()}
    assert {"config.dump", "spec.dump", "rootfs-diff.tar", "checkpoint/inventory.img"} <= names
    assert container.state == RUNNING
    assert container.exec("test", "-e", DELETED).exit_code == 1


def test_containerd_21_restores_by_itself_under_the_plain_handler(
    node_21: Node, kubelet_of: Callable[[Node], Kubelet], registry: Registry
) -> None:
    # Known under this one name only: the checkpoint records the first the runtime finds for the digest.
    registry.push(busybox_image(base_root(node_21.flavour), {"etc/by-itself": b""}), "by-itself:1")
    local = "localhost:5000/by-itself:1"
    node_21.cri.pull_image(local)
    kubelet = kubelet_of(node_21)
    source = running_counter(kubelet, counter(local))
    archive = take_checkpoint(node_21, source)
    source.stop()
    last = printed(source)[-1]
    restored = kubelet.run_pod(PodSpec("restored")).run(counter(archive))
    restored.wait_for(lambda each: printed(each)[-1:] > [last], "the counter to go on")
    numbers = printed(restored)
    # The log is archived after the process was let go again, so lines printed meanwhile come twice.
    assert sorted(set(numbers)) == list(range(1, numbers[-1] + 1))
    assert restored.log()[0] == source.log()[0], "it copies the archive's log into the new one"


def test_containerd_17_has_no_checkpoint_call(
    node_17: Node, kubelet_of: Callable[[Node], Kubelet], busybox: str
) -> None:
    container = running_counter(kubelet_of(node_17), counter(busybox))
    with pytest.raises(CriError) as failure:
        take_checkpoint(node_17, container)
    assert failure.value.code is grpc.StatusCode.UNIMPLEMENTED


def test_blogs_recipe_works_on_the_node(node_17: Node, registry: Registry) -> None:
    image = f"{registry.address}/built:1"
    script = f"""
        echo hello > /root/file; tar -C /root -cf /root/layer.tar file
        container=$(buildah from scratch)
        buildah add -q $container /root/layer.tar /
        buildah config --annotation=org.criu.checkpoint.container.name=counter $container
        buildah commit -q $container {image}
        buildah push -q --tls-verify=false {image}
        buildah rm -a; buildah rmi -a
    """
    node_17.sh(script, timeout_s=120)
    node_17.cri.pull_image(image)
    assert image in node_17.ctr("images", "ls", "-q")
    node_17.cri.remove_image(image)


@pytest.mark.parametrize(
    "listed", [["http://m/debian-security/", "http://m/debian/"], ["http://x/y", "http://m/debian"]]
)
def test_mirror_is_the_full_archive_of_the_machines_sources(listed: list[str]) -> None:
    assert mirror_of(listed) == "http://m/debian"


def test_machine_without_a_debian_mirror_is_told_what_to_set() -> None:
    with pytest.raises(Unavailable, match="NRI_RESTORE_DEBIAN_MIRROR"):
        mirror_of(["http://m/ubuntu/", "http://m/debian-security/"])


def _left_on_the_host(machine: str) -> list[str]:
    left = [str(group) for group in cgroups.folders(machine) if group.exists()]
    left += [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if machine in line]
    left += [
        str(path) for path in (Path("/sys/class/net", port_of(machine)), runs() / f"machine-{machine}") if path.exists()
    ]
    for process in Path("/proc").glob("[0-9]*"):
        if identity(int(process.name)) is None:
            continue  # dead; the host's init has not collected it yet
        try:
            if machine in (process / "cgroup").read_text() or machine in (process / "cmdline").read_text():
                left.append(f"process {process.name}")
        except OSError:
            continue
    return left


def test_stopped_node_leaves_nothing_on_the_host(network: Network, registry: Registry, busybox: str) -> None:
    with Node("containerd-1.7", network, "short-lived") as node:
        node.trust(registry)
        node.cri.pull_image(busybox)
        running_counter(Kubelet(node), counter(busybox))
        assert len(_left_on_the_host(node.name)) > 5
    assert _left_on_the_host(node.name) == []


def test_node_that_fails_to_start_leaves_nothing(network: Network) -> None:
    node = Node("containerd-1.7", network, "broken")
    node.files["/etc/containerd/config.toml"] = "version = [\n"
    with pytest.raises(Exception, match="containerd is not ready"):
        node.start()
    assert _left_on_the_host(node.name) == []


_CRASHING = """
import os, signal, sys
from tests.e2e.node.counter import counter, running_counter
from tests.e2e.node.image import busybox_image
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.roots import base_root
network = Network()
network.start()
node = Node("containerd-1.7", network)
node.start()
node.import_image(busybox_image(base_root("containerd-1.7")), "nri-restore.test/busybox:1")
running_counter(Kubelet(node), counter("nri-restore.test/busybox:1"))
print(network.name, node.name, node.init, flush=True)
signal.pause()
"""


@pytest.mark.parametrize("init_too", [False, True])
def test_sweep_removes_what_a_killed_test_run_left(init_too: bool) -> None:
    crashing = subprocess.Popen([sys.executable, "-c", _CRASHING], stdout=subprocess.PIPE, cwd=CHECKOUT, text=True)
    assert crashing.stdout
    network, machine, init = crashing.stdout.readline().split()
    assert f"machine-{machine}" not in sweep(), "a live run is not swept"
    with sweeping():
        if init_too:
            os.kill(int(init), signal.SIGKILL)
        crashing.kill()
        crashing.wait()
        crashing.stdout.close()
        assert _left_on_the_host(machine) != []
        assert {f"machine-{machine}", f"network-{network}"} <= set(sweep_now())
    assert _left_on_the_host(machine) == []
    assert not Path(f"/sys/class/net/nrb-{network}").exists()
    assert not (runs() / f"network-{network}").exists()


def test_sweep_spares_a_process_that_got_the_number_of_a_dead_machines_init(network: Network) -> None:
    with Machine("containerd-1.7", network, "bystander") as bystander:
        pid, start = (bystander.folder / "init").read_text().split()
        with sweeping():
            claim(runs() / "machine-000000", f"{pid} {int(start) - 1}")
            (runs() / "machine-000000/init").write_text(f"{pid} {int(start) - 1}")
            assert "machine-000000" in sweep_now()
        assert bystander.run(["echo", "alive"]).stdout == "alive\n"
