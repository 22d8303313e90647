"""What of an open socket's entry in files.img follows from the live pod."""

from __future__ import annotations

from shared.criu.criu_pb2 import FileEntry


def derive_socket(entry: FileEntry) -> None:
    """Sets the derived fields of a socket's part."""
