"""The floor of every restore: ``runc restore`` by hand, of the same images over the same root file system."""

from __future__ import annotations

import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

from tests.e2e.node.kubelet import Container, Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import Taken, have

TIMED: Final = "/opt/nri-restore/checkout/tests/bench/timed.py"
_FOLDER: Final = "/var/lib/containers/bare"
"""On the same disk as containerd's snapshots."""
_TASKS: Final = "/run/containerd/io.containerd.runtime.v2.task/k8s.io"
_PLANS: Final = "/run/nri-restore"


@dataclass(frozen=True)
class BareRestore:
    """A bundle, images and options taken from a container that was really restored."""

    node: Node
    argv: tuple[str, ...]

    def __call__(self) -> float:
        """Milliseconds from starting runc to its end; the restored process is removed afterwards, untimed."""
        self.node.sh(
            f"cd {_FOLDER}; rm -rf upper work; mkdir upper work; mkdir -p b/rootfs criu; "
            "mount -t overlay -o lowerdir=lower,upperdir=upper,workdir=work overlay b/rootfs"
        )
        try:
            said = self.node.run(["/usr/bin/python3", TIMED, "1", *self.argv], timeout_s=60).stdout
        finally:
            self.node.sh(f"runc --root {_FOLDER}/runc delete --force bare || :; umount {_FOLDER}/b/rootfs")
        return float(said) * 1000


@contextmanager
def bare_restore(kubelet: Kubelet, taken: Taken, image: str) -> Iterator[BareRestore]:
    """Restores once through the CRI, keeps what runc was given, and the pod with its namespaces until the end."""
    node = kubelet.node
    have(node, image)
    pod = kubelet.run_pod(taken.pod("bare"))
    try:
        container = pod.create(taken.restored(image))
        plan = node.path(f"{_PLANS}/{container.id}")
        wait_for((plan / "status").exists, "the container's plan")
        # Afterwards its options are those of the next checkpoint.
        options = (plan / "criu.conf").read_text()
        container.start()
        argv = _keep(node, container)
        node.path(f"{_FOLDER}/criu.conf").write_text(options)
        container.stop(0)
        container.remove()
        yield BareRestore(node, argv)
    finally:
        pod.remove(grace_s=0)
        kubelet.pods.remove(pod)
        node.sh(f"rm -rf {_FOLDER}")


def _keep(node: Node, container: Container) -> tuple[str, ...]:
    bundle, plan = f"{_TASKS}/{container.id}", f"{_PLANS}/{container.id}"
    words = node.path(f"{plan}/argv").read_text().split()
    images = words[words.index("--image-path") + 1]
    options = shlex.join(words[words.index("--work-path") + 2 :])
    node.sh(f"mkdir -p {_FOLDER}/b; cd {_FOLDER}; cp -a {bundle}/rootfs lower; cp -rL {images} images")
    config = json.loads(node.path(f"{bundle}/config.json").read_text())
    config["annotations"]["org.criu.config"] = f"{_FOLDER}/criu.conf"
    node.path(f"{_FOLDER}/b/config.json").write_text(json.dumps(config))
    command = f"runc --root {_FOLDER}/runc --log {_FOLDER}/log --log-format json restore --image-path {_FOLDER}/images"
    command += f" --work-path {_FOLDER}/criu {options} --bundle {_FOLDER}/b --pid-file {_FOLDER}/pid"
    return tuple(shlex.split(f"{command} --detach --no-subreaper bare"))
