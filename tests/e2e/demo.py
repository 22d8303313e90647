"""``make demo``: a running counter is checkpointed on one node and goes on, number by number, on another.

The first node stands in for the cluster's kubelet (containerd 2.1, whose CRI can checkpoint); the second is the point:
an unmodified containerd 1.7, which can do neither, with nri-restore beside it. A given archive skips the first half.
"""

from __future__ import annotations

import argparse
import sys
import tarfile
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from shared.archive import open_checkpoint
from shared.errors import RestoreError
from shared.metadata import Checkpoint, read_checkpoint
from shared.run import run
from tests.e2e.node.image import busybox_image, read_archive
from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.node.specs import SERVICE_ACCOUNT, TERMINATION_LOG, ContainerSpec, PodSpec, VolumeMount
from tests.e2e.node.sweep import sweep
from tests.e2e.node.waiting import wait_for

COUNTER = "i=0; while true; do i=$((i+1)); echo $i; echo $i > /root/count; sleep 1; done"
RUNTIME_OWN = {"/etc/hosts", "/etc/hostname", "/etc/resolv.conf", "/dev/shm", TERMINATION_LOG, SERVICE_ACCOUNT}
_phases: list[tuple[str, float]] = []


@contextmanager
def phase(what: str) -> Iterator[None]:
    """Says what begins; remembers how long it took."""
    print(f"\n=== {what}", flush=True)
    begin = time.monotonic()
    yield
    _phases.append((what, time.monotonic() - begin))


def show(label: str, text: str) -> None:
    for line in text.rstrip().splitlines() or [""]:
        print(f"    {label:<28} {line}", flush=True)
        label = ""


def take_checkpoint(network: Network, registry: Registry, into: Path) -> Path:
    """Runs a counter on a containerd 2.1 node for a few seconds and checkpoints it through the CRI."""
    base = registry.push(busybox_image(base_root("containerd-2.1")), "busybox:1")
    with phase("start a node with containerd 2.1 and a counter on it"):
        stack = ExitStack()
        node = stack.enter_context(Node("containerd-2.1", network, "source"))
    with stack:
        node.trust(registry)
        node.cri.pull_image(base)
        spec = ContainerSpec(base, "counter", ("sh", "-c", COUNTER))
        counter = Kubelet(node).run(PodSpec("counter"), spec).containers[0]
        counter.sh("echo written before the checkpoint > /root/testfile; rm /etc/motd")
        show("changed in the container", "/root/testfile written, /etc/motd deleted")
        wait_for(lambda: len(counter.logs()) >= 4, "the counter to reach 4")
        with phase("checkpoint the running counter (what the kubelet's checkpoint API does)"):
            node.cri.checkpoint_container(counter.id, "/tmp/counter.tar")
        show("its log until then", " ".join(counter.logs()))
        archive = into / "counter.tar"
        archive.write_bytes(node.path("/tmp/counter.tar").read_bytes())
        show("archive", f"{archive.stat().st_size} bytes")
    return archive


def restore_spec(reference: str, checkpoint: Checkpoint) -> tuple[PodSpec, ContainerSpec]:
    """The pod that restores: the same mounts and rights as the dumped container had."""
    spec = checkpoint.spec
    binds = [mount for mount in spec.mounts if mount.type == "bind"]
    paths = {mount.destination: mount for mount in binds}
    volumes = tuple(
        VolumeMount(path, f"volume{number}", read_only="ro" in mount.options)
        for number, (path, mount) in enumerate(paths.items())
        if path not in RUNTIME_OWN
    )
    return (
        PodSpec("resumed", handler="nri-restore", service_account=SERVICE_ACCOUNT in paths),
        ContainerSpec(
            reference,
            checkpoint.container_name or "main",
            mounts=volumes,
            tty=spec.terminal,
            read_only_root=spec.root_readonly,
            run_as_user=spec.uid or None,
            run_as_group=spec.gid or None if spec.uid else None,
            no_new_privileges=spec.no_new_privileges,
            seccomp="RuntimeDefault" if spec.seccomp else "Unconfined",
            termination_log=TERMINATION_LOG in paths,
        ),
    )


def build_image(archive: Path, reference: str, base: str | None) -> None:
    """The product's own command, as a user runs it."""
    words = ["kubectl-restore", "build", archive, "-t", reference, "--push", "--plain-http"]
    words += ["--base", base] if base else []
    print("    $ " + " ".join(str(word) for word in words), flush=True)
    done = run([Path(sys.executable).parent / "kubectl-restore", *words[1:]], timeout_s=600)
    show("", done.stdout + done.stderr)


def changed_files(archive: Path) -> tuple[list[str], list[str]]:
    """Paths the checkpointed container had written and had deleted, of the first few."""
    with open_checkpoint(archive) as files:
        checkpoint = read_checkpoint(files)
        mounted = {mount.destination for mount in checkpoint.spec.mounts}
        deleted = [path.lstrip("/") for path in checkpoint.deleted_files]
        written = []
        if checkpoint.rootfs_diff:
            with files.open(checkpoint.rootfs_diff) as diff, tarfile.open(fileobj=diff) as tar:
                for entry in tar:
                    folder, _, name = entry.name.rpartition("/")
                    if name.startswith(".wh."):
                        deleted.append(f"{folder}/{name.removeprefix('.wh.')}".lstrip("/"))
                    elif entry.isfile() and f"/{entry.name}" not in mounted:
                        written.append(entry.name)
    return written[:5], deleted[:5]


def show_restored(container: Container, archive: Path, number: int | None) -> None:
    """Looks into the resumed container; exits with a sentence when it is not what was dumped."""
    wait_for(lambda: len(container.logs()) > 0, "the restored container's log")
    time.sleep(2.5)
    show("its log now (old, then new)", " ".join(container.logs()[-12:]))
    written, deleted = changed_files(archive)
    for path in written:
        found = container.exec("head", "-n", "3", f"/{path}")
        show(f"it had written /{path}", found.stdout or "(empty)")
        if found.exit_code:
            sys.exit(f"/{path} is not there: {found.stderr}")
    for path in deleted:
        found = container.exec("ls", f"/{path}")
        show(f"it had deleted /{path}", found.stderr)
        if not found.exit_code:
            sys.exit(f"/{path} is back")
    show("PID 1", container.sh("tr '\\0' ' ' < /proc/1/cmdline"))
    show("hostname (the new pod's)", container.sh("hostname"))
    if number is not None and int(container.logs()[-1]) <= number:
        sys.exit(f"the counter did not go on from {number}")


def sibling_base(archive: Path, checkpoint: Checkpoint) -> str | None:
    """An OCI archive beside the given one that is its base image, so that a sample needs no registry."""
    for candidate in sorted(archive.parent.glob("*.tar")):
        if candidate != archive and checkpoint.base.digest is not None:
            try:
                if read_archive(candidate).digest == checkpoint.base.digest:
                    return f"oci-archive:{candidate}"
            except (KeyError, ValueError, RestoreError):
                continue
    return None


def demo(given: Path | None, base: str | None) -> None:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="nri-restore-demo-")))
        sweep()
        with phase("prepare the base systems (the first time: some minutes of debootstrap)"):
            for flavour in ("containerd-1.7", *(() if given else ("containerd-2.1",))):
                base_root(flavour)
        with phase("start a network and a registry"):
            network = stack.enter_context(Network())
            registry = stack.enter_context(Registry(network))
        archive = given or take_checkpoint(network, registry, folder)
        with open_checkpoint(archive) as files:
            checkpoint = read_checkpoint(files)
        if given and base is None:
            base = sibling_base(given, checkpoint)
        with phase("build the checkpoint image and push it"):
            reference = f"{registry.address}/checkpoints/counter:1"
            build_image(archive, reference, base)
        with phase("start a node with an unmodified containerd 1.7 and the nri-restore daemon"):
            node = stack.enter_context(Node("containerd-1.7", network, "target"))
            node.trust(registry)
            node.start_daemon()
            show("containerd", node.cri.version().runtime_version)
        pod_spec, container_spec = restore_spec(reference, checkpoint)
        kubelet = Kubelet(node)
        with phase("pull the checkpoint image (the kubelet's part)"):
            node.cri.pull_image(reference)
        with phase("create the pod sandbox"):
            pod = kubelet.run_pod(pod_spec)
        with phase("CreateContainer: nri-restore checks the checkpoint against the pod"):
            container = pod.create(container_spec)
        with phase("StartContainer: the process resumes"):
            container.start()
        counts = container.logs()
        number = int(counts[-1]) if counts and counts[-1].isdecimal() else None
        with phase("look at the resumed container"):
            show_restored(container, archive, number)
        with phase("stop and remove it"):
            kubelet.remove_all()
        show("the daemon's own report", node.daemon.output().strip().splitlines()[-1] if node.daemon else "")
    print("\n=== done; the nodes are gone. How long each phase took:")
    for what, seconds in _phases:
        print(f"    {seconds:8.3f} s  {what}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--archive", type=Path, help="restore this checkpoint archive instead of taking one")
    parser.add_argument("--base", help="its base image: a reference, oci:DIR or oci-archive:FILE")
    arguments = parser.parse_args()
    try:
        demo(arguments.archive, arguments.base)
    except RestoreError as error:
        sys.exit(f"demo: {error.reason}: {error}")


if __name__ == "__main__":
    main()
