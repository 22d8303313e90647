"""What a SOURCE says: a file here, a file of a node, or a pod to be checkpointed now."""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from pathlib import Path

from shared.errors import RestoreError

HELP = (
    "A checkpoint archive or unpacked directory; node/NAME:PATH, an archive on a node; "
    "or pod/NAME[:CONTAINER], which is checkpointed now."
)


@dataclass(frozen=True)
class LocalFile:
    path: Path


@dataclass(frozen=True)
class NodeFile:
    node: str
    path: str
    """Absolute, on the node."""

    @property
    def directory(self) -> str:
        return posixpath.dirname(self.path)

    @property
    def name(self) -> str:
        return posixpath.basename(self.path)


@dataclass(frozen=True)
class PodContainer:
    pod: str
    container: str = ""
    """Empty: the pod's default one."""


SourceName = LocalFile | NodeFile | PodContainer


def source_name(text: str) -> SourceName:
    """Reads a SOURCE; what exists here, or starts with ``./`` or ``/``, is a file.

    Raises RestoreError("SourceInvalid").
    """
    if text.startswith(("./", "../", "/")) or Path(text).exists():
        return LocalFile(Path(text))
    kind, slash, rest = text.partition("/")
    if slash and kind.lower() in ("node", "nodes", "no"):
        return _node_file(text, rest)
    if slash and kind.lower() in ("pod", "pods", "po"):
        found = re.fullmatch(r"([a-z0-9][a-z0-9.-]*)(?::([a-z0-9][a-z0-9-]*))?", rest)
        if not found:
            raise RestoreError("SourceInvalid", f"{text} is not pod/NAME or pod/NAME:CONTAINER")
        return PodContainer(found[1], found[2] or "")
    return LocalFile(Path(text))


def _node_file(text: str, rest: str) -> NodeFile:
    node, colon, path = rest.partition(":")
    if not node or not colon or not path.startswith("/"):
        raise RestoreError("SourceInvalid", f"{text} is not node/NAME:/PATH")
    # normpath keeps two slashes at the start.
    if posixpath.normpath(path) != path or path == "/" or path.startswith("//"):
        raise RestoreError("SourceInvalid", f"the path in {text} must be plain: no //, ., .. or slash at its end")
    return NodeFile(node, path)
