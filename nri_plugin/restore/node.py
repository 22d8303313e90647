"""What a preparation works with: the node's runtime, configuration, views, and what was learnt once per image."""

from __future__ import annotations

import platform
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from nri_plugin.config import Config
from nri_plugin.containerd.client import Containerd
from nri_plugin.logs import Subject
from nri_plugin.restore.cgroups import cgroup2_options, hierarchies
from nri_plugin.restore.images import StoredImage, Views
from nri_plugin.restore.kernel import KernelCheck, check_kernel
from nri_plugin.restore.mounting import inherited_flags
from nri_plugin.restore.pull_rights import PullRights
from nri_plugin.restore.signature import Signatures
from nri_plugin.restore.verify import Verdict, Verdicts
from nri_plugin.restore.written import write_judged, write_shared
from shared.archive import CheckpointFiles, open_checkpoint
from shared.compression import Compression, Decompressed, sniff
from shared.criu.dump import Dump
from shared.criu.tmpfs import read_tmpfs
from shared.errors import CheckpointInvalid, Refused, RestoreError, Unavailable
from shared.judge import NodeSide, read
from shared.metadata import Checkpoint, read_checkpoint
from shared.node_facts import NodeFacts, gather
from shared.spec import RuntimeSpec
from shared.special_files import SpecialFile, special_files


@dataclass(frozen=True)
class OpenedCheckpoint:
    """A checkpoint image whose view is mounted and whose metadata has been read and found whole."""

    image: StoredImage
    root: Path
    checkpoint: Checkpoint
    dump: Dump
    written: Path
    """Directory of the images that no pod changes."""
    special: tuple[SpecialFile, ...]
    """In images of tmpfs mounts."""

    def files(self) -> CheckpointFiles:
        return open_files(self.image, self.root)


def open_files(image: StoredImage, root: Path) -> CheckpointFiles:
    """The files below ``root``, which for a layered image may itself be a link that must not be followed."""
    if image.layered:
        return open_checkpoint(root.parent, subdirectory=root.name)
    return open_checkpoint(root)


@dataclass
class Node:
    """One node's runtime and caches; safe to use from several threads."""

    config: Config
    containerd: Containerd
    views: Views
    signatures: Signatures = field(default_factory=Signatures)
    logins: Callable[[Subject, str], Sequence[tuple[str, str]]] = lambda subject, reference: ()
    """What the pod of a container may pull an image with."""
    pull_rights: PullRights = field(init=False)
    lowers: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By image digest: the directories of its committed root file system, as long as that snapshot stands."""
    verdicts: Verdicts = field(default_factory=Verdicts)
    suited: dict[str, NodeFacts] = field(default_factory=dict)
    """By image digest: the facts of this node that the checkpoint was found to suit."""
    compared: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """By image digest: the lower directories of a root file system whose files were found to be the dump's."""
    _opened: dict[str, OpenedCheckpoint] = field(default_factory=dict)
    _in_diff: dict[str, tuple[SpecialFile, ...]] = field(default_factory=dict)
    _locks: dict[str, threading.RLock] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)
    _gathering: threading.Lock = field(default_factory=threading.Lock)
    _checking: threading.Lock = field(default_factory=threading.Lock)
    _facts: tuple[tuple[str, int], NodeFacts] | None = None
    _kernel: tuple[NodeFacts, KernelCheck] | None = None

    def __post_init__(self) -> None:
        self.pull_rights = PullRights(self.config.paths.state)

    @classmethod
    def of(cls, config: Config) -> Node:
        runtime = config.runtime
        if runtime.name == "cri-o":
            from nri_plugin.crio.store import CrioStore  # what no node with containerd needs

            store = CrioStore(runtime.storage, runtime.storage_run)
            return cls(config, store, Views(store, config.paths.plans))
        containerd = Containerd(runtime.socket, namespace=runtime.namespace, snapshotter=runtime.snapshotter)
        return cls(config, containerd, Views(containerd, config.paths.plans))

    @contextmanager
    def image_lock(self, digest: str) -> Iterator[None]:
        """One thread at a time for what is made once per image."""
        with self._guard:
            lock = self._locks.setdefault(digest, threading.RLock())
        with lock:
            yield

    def open(self, image: StoredImage) -> OpenedCheckpoint:
        """Mounts the view and reads the checkpoint, or finds both done; raises CheckpointInvalid.

        An image that turns out damaged keeps no view.
        """
        with self.image_lock(image.digest):
            root = self.views.mount(image)
            if (known := self._opened.get(image.digest)) and known.written.is_dir():
                return known
            try:
                with open_files(image, root) as files:
                    checkpoint = read_checkpoint(files)
                    reading = read(files)
                    special = read_tmpfs(files, reading.dump.mounts)
                    view = self.views.path(image.digest)
                    written = write_shared(view, reading.files, files, root / "checkpoint")
            except (CheckpointInvalid, Refused) as error:
                self.views.release(image.digest)
                # The view's place on this node means nothing to whoever reads the sentence.
                place = root.parent if image.layered else root
                sentence = error.sentence.replace(str(place), "the checkpoint image")
                raise type(error)(error.reason, sentence) from error
            except BaseException:
                self.views.release(image.digest)
                raise
            opened = OpenedCheckpoint(image, root, checkpoint, reading.dump, written, special)
            self._opened[image.digest] = opened
            return opened

    def images_for(self, opened: OpenedCheckpoint, verdict: Verdict) -> Path:
        """The directory that CRIU restores from in pods of this verdict."""
        with self.image_lock(opened.image.digest):
            view = self.views.path(opened.image.digest)
            with opened.files() as files:
                return write_judged(
                    view, verdict.key, opened.written, verdict.judgement.images, files, opened.root / "checkpoint"
                )

    def side(self, live: RuntimeSpec) -> NodeSide:
        """What of this node the images for a container depend on."""
        return NodeSide(platform.release(), cgroup2_options(), hierarchies(), inherited_flags(live))

    def special_in_diff(self, opened: OpenedCheckpoint) -> tuple[SpecialFile, ...]:
        """Device nodes and programs that raise rights in the rootfs diff of an archive image, read once per image.

        A layered image's diff is a layer like those of any image, unpacked by the runtime before we are asked.
        Raises CheckpointInvalid: RootfsDiffTooLarge, and what walking a tar archive raises.
        """
        name = opened.checkpoint.rootfs_diff
        if opened.image.layered or name is None:
            return ()
        with self.image_lock(opened.image.digest):
            if (known := self._in_diff.get(opened.image.digest)) is None:
                with opened.files() as files:
                    known = diff_special_files(files, name, limit_bytes=self.config.limits.rootfs_diff_bytes)
                self._in_diff[opened.image.digest] = known
            return known

    def release(self, digest: str) -> None:
        """Lets go of a view that no plan names any more."""
        with self.image_lock(digest):
            if self.views.release(digest):
                self._opened.pop(digest, None)
                self._in_diff.pop(digest, None)

    def facts(self) -> NodeFacts:
        """What this node is, gathered once for each criu that lay in the PATH; the same object as long as it holds.

        Raises Refused("CriuMissing").
        """
        program = shutil.which("criu")
        if program is None:
            raise Refused("CriuMissing", "this node has no criu; install it there")
        identity = (program, Path(program).stat().st_mtime_ns)
        with self._gathering:
            if self._facts is None or self._facts[0] != identity:
                facts = gather("this node")
                if facts.criu_version is None:
                    raise Unavailable("CriuMissing", f"this node cannot restore: {program} --version says no version")
                self._facts = (identity, facts)
            return self._facts[1]

    def kernel(self) -> KernelCheck:
        """What ``criu check`` says, once for each criu; raises what ``facts`` does."""
        facts = self.facts()
        with self._checking:
            if self._kernel is None or self._kernel[0] is not facts:
                try:
                    said = check_kernel()
                except RestoreError as error:
                    said = KernelCheck(False, (), (error.sentence,))
                self._kernel = (facts, said)
            return self._kernel[1]


def diff_special_files(files: CheckpointFiles, name: str, *, limit_bytes: int) -> tuple[SpecialFile, ...]:
    """Special files of a rootfs diff, plain or compressed; see ``Node.special_in_diff``."""
    with files.open(name) as head:
        compression = sniff(head.read(4))
    source = files.open(name)
    if compression is Compression.NONE:
        with source:
            stream = _Forward(source)
            return tuple(special_files(stream, name, "", limit_bytes=limit_bytes, too_large=_TOO_LARGE, links=False))
    # Headers and padding come on top of what the files hold.
    with Decompressed(source, compression, name, limit_bytes=limit_bytes * 2) as unpacked:
        return tuple(special_files(unpacked, name, "", limit_bytes=limit_bytes, too_large=_TOO_LARGE, links=False))


_TOO_LARGE = "RootfsDiffTooLarge"


@dataclass
class _Forward:
    """A plain archive as the walk wants it."""

    source: BinaryIO

    def read_exactly(self, size: int) -> bytes:
        return self.source.read(size)

    def skip(self, size: int) -> int:
        before = self.source.tell()
        end = self.source.seek(0, 2)
        return self.source.seek(min(before + size, end)) - before
