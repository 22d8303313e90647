"""What the node keeps of checkpoint images: a lease each, remembered by reference, dropped by count and age.

``<state>/images/<digest hex>`` holds the image's target digest and every reference it was asked for by, one a line; its
modification time is the last use. The kubelet's image garbage collection knows only images that pods name, so the
lease is what keeps a checkpoint named by an annotation, and the committed root file system of any.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from nri_plugin.config import Cache
from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd, NotFound
from nri_plugin.restore.images import LEASE_PREFIX, StoredImage, stored_image


class ImageCache:
    """Checkpoint images held by our leases."""

    def __init__(self, containerd: Containerd, state: Path, limits: Cache) -> None:
        self.containerd = containerd
        self.directory = state / "images"
        self.limits = limits

    def remember(self, image: StoredImage, reference: str) -> None:
        """Notes a use of ``image``, asked for as ``reference``."""
        entry = self._entry(image.digest)
        known = self._lines(entry)
        if known[:1] == [image.target] and reference in known[1:]:
            with suppress(FileNotFoundError):  # pruned just now
                os.utime(entry)
                return
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        references = list(dict.fromkeys([*known[1:], reference])) if known[:1] == [image.target] else [reference]
        # Replicas restored at once note the same image at once.
        temporary = entry.with_name(f".{entry.name}.{threading.get_ident()}")
        temporary.write_text("\n".join([image.target, *references]) + "\n")
        temporary.rename(entry)

    def recall(self, reference: str) -> StoredImage | None:
        """The image last asked for as ``reference`` whose content our lease kept; None when there is none."""
        entries = sorted(self._entries(), key=_used_at, reverse=True)
        for entry in entries:
            target, *references = self._lines(entry) or [""]
            if reference in references:
                try:
                    return stored_image(self.containerd, api.Descriptor(digest=target))
                except NotFound:
                    continue
        return None

    def prune(self, in_use: Callable[[], frozenset[str]], lock: Callable[[str], AbstractContextManager[None]]) -> None:
        """Drops the leases of images that nothing uses, beyond the newest few or when too old.

        ``in_use`` is asked again under each image's ``lock``: a preparation may have begun meanwhile.
        """
        used = in_use()
        idle = [entry for entry in self._entries() if f"sha256:{entry.name}" not in used]
        idle.sort(key=_used_at, reverse=True)
        oldest = time.time() - self.limits.unused_age_s
        for position, entry in enumerate(idle):
            if position >= self.limits.unused or _used_at(entry) < oldest:
                self._drop(entry.name, in_use, lock)
        kept = {LEASE_PREFIX + entry.name for entry in self._entries()}
        for lease in self.containerd.leases(LEASE_PREFIX):
            if lease.id not in kept:
                self._drop(lease.id.removeprefix(LEASE_PREFIX), in_use, lock)

    def _drop(
        self,
        name: str,
        in_use: Callable[[], frozenset[str]],
        lock: Callable[[str], AbstractContextManager[None]],
    ) -> None:
        digest = f"sha256:{name}"
        with lock(digest):
            if digest not in in_use():
                self.containerd.delete_lease(LEASE_PREFIX + name)
                self._entry(digest).unlink(missing_ok=True)

    def _entry(self, digest: str) -> Path:
        return self.directory / digest.removeprefix("sha256:")

    def _entries(self) -> list[Path]:
        try:
            return [entry for entry in self.directory.iterdir() if not entry.name.startswith(".")]
        except FileNotFoundError:
            return []

    @staticmethod
    def _lines(entry: Path) -> list[str]:
        try:
            return entry.read_text().splitlines()
        except FileNotFoundError:
            return []


def _used_at(entry: Path) -> float:
    """When the image was last used, as a Unix time; 0 for an entry that another thread has just dropped."""
    try:
        return entry.stat().st_mtime
    except FileNotFoundError:
        return 0.0
