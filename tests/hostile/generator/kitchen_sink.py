"""Checkpoints of containers that have one object open of each kind (sink.py), for three kinds of pod."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Final

from shared.run import run
from tests.e2e.node.counter import printed
from tests.e2e.node.image import OciImage, busybox_layer, image_of, tar_of
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec, VolumeMount
from tests.e2e.restoring import Taken, checkpointed, push_base
from tests.hostile.attack import Victim

PROGRAM: Final = "/sink.py"
COMMAND: Final = ("/usr/bin/python3", "-I", "-S", PROGRAM)
VOLUMES: Final = (VolumeMount("/read", "read", read_only=True), VolumeMount("/write", "write"))
SPECS: Final[Mapping[Victim, ContainerSpec]] = {
    "sink": ContainerSpec("", "counter", COMMAND, mounts=VOLUMES, seccomp="RuntimeDefault"),
    "administrator": ContainerSpec("", "counter", COMMAND, mounts=VOLUMES, add_capabilities=("SYS_ADMIN",)),
}
RUNC_CONF: Final = "/etc/criu/runc.conf"
OPTIONS: Final = "file-locks\next-unix-sk\nlink-remap\ntcp-established\n"
"""What a node's administrator lets CRIU dump."""


def sink_image(root: Path) -> OciImage:
    """busybox, and the Python of this base root with what sink.py imports."""
    return image_of([busybox_layer(root), _python_layer(root)], {"Env": ["PATH=/usr/bin:/bin"]}, compressed=True)


def _python_layer(root: Path) -> bytes:
    binary = (root / "usr/bin/python3").resolve()
    library = root / "usr/lib" / binary.name
    objects = [binary, *(library / "lib-dynload").glob("*.so")]
    found = [path for path in (*objects, *library.rglob("*.py")) if path.is_file()]
    files = {str(path.relative_to(root)): path.read_bytes() for path in found}
    files |= {name.lstrip("/"): (root / name.lstrip("/")).resolve().read_bytes() for name in _libraries(root, objects)}
    files[PROGRAM.lstrip("/")] = Path(__file__).with_name("sink.py").read_bytes()
    programs = {name: 0o755 for name in files if name.startswith(("usr/bin", "lib"))}
    return tar_of(files, links={"usr/bin/python3": binary.name}, modes=programs)


def _libraries(root: Path, objects: list[Path]) -> set[str]:
    """Paths in the root of the shared libraries that these programs load."""
    found = set()
    for path in objects:
        said = run(["chroot", root, "/usr/bin/ldd", f"/{path.relative_to(root)}"], timeout_s=20, check=False).stdout
        found |= {word for word in said.split() if word.startswith("/") and (root / word.lstrip("/")).exists()}
    return found


@contextmanager
def _dumps_everything(node: Node) -> Iterator[None]:
    configuration = node.path(RUNC_CONF)
    before = configuration.read_bytes() if configuration.exists() else None
    configuration.parent.mkdir(parents=True, exist_ok=True)
    configuration.write_text(OPTIONS)
    try:
        yield
    finally:
        if before is None:
            configuration.unlink()
        else:
            configuration.write_bytes(before)


def take_sinks(node: Node, registry: Registry, folder: Path) -> dict[Victim, Taken]:
    """Checkpoints of every sink in ``SPECS``, taken through the CRI of a containerd 2.x node."""
    base = push_base(registry, sink_image(base_root(node.flavour)), "sink:1")
    kubelet = Kubelet(node)
    with _dumps_everything(node):
        return {
            name: checkpointed(
                kubelet,
                folder,
                PodSpec(f"victim-{name}"),
                replace(spec, image=base),
                lambda each: len(printed(each)) > 2,
            )
            for name, spec in SPECS.items()
        }
