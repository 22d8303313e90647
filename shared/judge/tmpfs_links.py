"""Whether a path leads by way of a symbolic link in a tmpfs that CRIU fills.

A tmpfs may be mounted at several places, in the mount namespaces of processes too; its links are known by their paths
at the first of them (shared/criu/tmpfs.py).
"""

from __future__ import annotations

from collections.abc import Set
from pathlib import PurePosixPath

from shared.criu.dump import Dump
from shared.judge.paths import spelt_once


class TmpfsLinks:
    """``links``: paths of all of them."""

    def __init__(self, dump: Dump, links: Set[str]) -> None:
        self._links = {spelt_once(link) for link in links}
        self._first: dict[str, set[str]] = {}
        """By place of a tmpfs: where it is mounted first."""
        first: dict[int, str] = {}
        for mount in dump.mounts:
            if mount.fstype == "tmpfs" and mount.root == "/":
                place = spelt_once(mount.mountpoint)
                self._first.setdefault(place, set()).add(first.setdefault(mount.device, place))

    def lead_to(self, path: str) -> bool:
        """Whether one of them is at the path or on the way; it is spelt once."""
        if not self._links:
            return False
        ways = [path, *map(str, PurePosixPath(path).parents)]
        if any(way in self._links for way in ways):
            return True
        for place in ways:
            for first in self._first.get(place, ()):
                inside = [way.removeprefix(place.rstrip("/")) for way in ways if len(way) > len(place)]
                if any(spelt_once(first + way) in self._links for way in inside):
                    return True
        return False
