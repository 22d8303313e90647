"""Archives: tar headers, outer compression, what lies in them, and the special files of a container's file system."""

from __future__ import annotations

import gzip
import io
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import zstandard

from kubectl_restore.check.rootfs import Layer, look_up
from kubectl_restore.image.checkpoint_image import load_checkpoint_image
from kubectl_restore.image.images import load_image
from kubectl_restore.image.layout import INDEX_FILE, LAYOUT_FILE, LAYOUT_MARK, blob_path
from kubectl_restore.image.oci_archive import ArchiveImages
from kubectl_restore.image.source import Literal
from shared import oci
from shared.archive import open_checkpoint
from shared.compression import Compression, Decompressed
from shared.errors import CheckpointInvalid, RestoreError
from shared.metadata import read_checkpoint
from shared.special_files import special_files
from shared.tar import CHECKPOINT, MemberWalk
from tests.fuzz.target import Target, attempt
from tests.support.checkpoints import compress, containerd, crio, member, podman, tar_of, tar_of_members

BLOCK = 512
LIMIT_BYTES = 4 << 20


class _Stream:
    def __init__(self, content: bytes) -> None:
        self._file = io.BytesIO(content)

    def read_exactly(self, size: int) -> bytes:
        return self._file.read(size)

    def skip(self, size: int) -> int:
        before = self._file.tell()
        end = self._file.seek(0, 2)
        return self._file.seek(min(before + size, end)) - before


def with_checksums(content: bytes) -> bytes:
    """Every block that looks like a header gets a right checksum: otherwise nearly every change ends there."""
    blocks = [bytearray(content[at : at + BLOCK]) for at in range(0, len(content), BLOCK)]
    for block in blocks:
        if len(block) == BLOCK and block[257:262] == b"ustar":
            block[148:156] = b" " * 8
            block[148:156] = f"{sum(block):06o}\0 ".encode()
    return b"".join(blocks)


def _headers(content: bytes) -> None:
    whole = with_checksums(content)
    plain = MemberWalk(_Stream(whole), "archive", CHECKPOINT)
    attempt(lambda: [plain.start(64) for _ in plain.members()], (CheckpointInvalid,))
    list(special_files(_Stream(whole), "archive", "/", limit_bytes=LIMIT_BYTES, too_large="ArchiveTooLarge"))


def _header_seeds() -> Iterator[bytes]:
    yield tar_of({"config.dump": b"{}", "checkpoint/inventory.img": b"x" * 20})
    entries = [
        member("./", kind=tarfile.DIRTYPE),
        member("a" * 120, b"x"),
        member("b", kind=tarfile.LNKTYPE, linkname="a" * 120),
        member("c", kind=tarfile.SYMTYPE, linkname="/etc"),
        member("d", kind=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("e", b"x", mode=0o4755, uid=1 << 22, gid=7),
        member("f", b"x" * 600, pax_headers={"SCHILY.xattr.security.capability": "\1", "mtime": "1.5"}),
        member("g\xff", b""),
    ]
    for form in (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT):
        yield tar_of_members(entries, form)
    sparse = tarfile.TarInfo("hole")
    sparse.type = tarfile.GNUTYPE_SPARSE
    yield sparse.tobuf(tarfile.GNU_FORMAT) + bytes(1024)


def _archive(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=_memory()) as file:
        file.write(content)
        file.flush()
        with open_checkpoint(Path(file.name)) as files:
            for name in files.names()[:20]:
                with files.open(name) as part:
                    part.read(1 << 16)
            read_checkpoint(files)


def _memory() -> str | None:
    return "/dev/shm" if Path("/dev/shm").is_dir() else None


def _archive_seeds() -> Iterator[bytes]:
    for engine in (containerd, crio, podman):
        small = {name: content[:400] for name, content in engine().items() if "pages-" not in name}
        yield tar_of(small)
    for compression in (Compression.GZIP, Compression.ZSTD):
        yield tar_of(small, compression)


def _decompressed(compression: Compression, content: bytes) -> None:
    with Decompressed(io.BytesIO(content), compression, "archive", limit_bytes=LIMIT_BYTES) as stream:
        while stream.read_exactly(1 << 18):
            pass


def _gzip_seeds() -> Iterator[bytes]:
    yield gzip.compress(b"hello" * 100, mtime=0)
    yield gzip.compress(b"a", mtime=0) + gzip.compress(b"b" * 3000, mtime=0) + bytes(512)
    yield gzip.compress(bytes(2 * LIMIT_BYTES), mtime=0)  # a bomb


def _zstd_seeds() -> Iterator[bytes]:
    yield compress(b"hello" * 100, Compression.ZSTD)
    yield compress(b"a", Compression.ZSTD) + b"\x50\x2a\x4d\x18\x04\0\0\0note" + compress(b"b" * 3000, Compression.ZSTD)
    yield zstandard.ZstdCompressor(level=19, write_content_size=False).compress(bytes(2 * LIMIT_BYTES))  # a bomb


def _layers(content: bytes) -> None:
    """A layer over another one, as ``check`` looks for a program's files in them."""
    below = tar_of({"usr/bin/app": b"x", "etc/motd": b"y"})
    layers = [Layer("above", Literal(with_checksums(content)), ("/etc/gone",)), Layer("below", Literal(below))]
    found = look_up(layers, ["/usr/bin/app", "/bin/app", "/etc/motd", "/"])
    assert found["/"] is not None


def _layer_seeds() -> Iterator[bytes]:
    yield tar_of_members(
        [
            member("usr/", kind=tarfile.DIRTYPE),
            member("usr/bin/.wh.app"),
            member("etc/.wh..wh..opq"),
            member("bin", kind=tarfile.SYMTYPE, linkname="usr/bin"),
            member("usr/bin/tool", b"x"),
            member("usr/bin/app", kind=tarfile.LNKTYPE, linkname="usr/bin/tool"),
        ]
    )
    # Each link leads to one before it: every pass over the layer resolves one of them.
    chain = [member(f"l{n}", kind=tarfile.LNKTYPE, linkname=f"l{n + 1}") for n in range(3000)]
    yield tar_of_members([*chain, member("usr/bin/app", kind=tarfile.LNKTYPE, linkname="l0")], tarfile.GNU_FORMAT)


PLATFORM = oci.Platform("linux", "amd64")


def _oci_archive(content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=_memory()) as file:
        file.write(with_checksums(content))
        file.flush()
        images = ArchiveImages(Path(file.name))
        for entry in images.index.manifests[:4]:
            attempt(lambda entry=entry: load_image(images, entry.digest, "image", PLATFORM), (RestoreError,))  # type: ignore[misc]
            attempt(lambda entry=entry: load_checkpoint_image(images, entry.digest, "image"), (RestoreError,))  # type: ignore[misc]


def _oci_archive_seeds() -> Iterator[bytes]:
    layer = tar_of({"config.dump": b"{}"})
    config = oci.encode(
        {"os": "linux", "architecture": "amd64", "rootfs": {"type": "layers", "diff_ids": [oci.digest_of(layer)]}}
    )
    descriptors = [
        oci.Descriptor(kind, oci.digest_of(content), len(content))
        for kind, content in ((oci.CONFIG, config), (oci.LAYER, layer))
    ]
    manifest = oci.encode(oci.Manifest(descriptors[0], (descriptors[1],), {}).as_json())
    entry = oci.Descriptor(oci.MANIFEST, oci.digest_of(manifest), len(manifest)).as_json()
    index = oci.encode({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]})
    blobs = {blob_path(oci.digest_of(content)): content for content in (layer, config, manifest)}
    whole = tar_of({LAYOUT_FILE: LAYOUT_MARK, INDEX_FILE: index, **blobs})
    yield whole
    # A size of -512 in the second header: Python's tarfile reads that header again and again.
    yield whole[: 1024 + 124] + b"\xff" * 10 + b"\xfe\0" + whole[1024 + 136 :]


TARGETS = (
    Target("tar", _headers, _header_seeds),
    Target("archive", _archive, _archive_seeds),
    Target("gzip", lambda content: _decompressed(Compression.GZIP, content), _gzip_seeds),
    Target("zstd", lambda content: _decompressed(Compression.ZSTD, content), _zstd_seeds),
    Target("layers", _layers, _layer_seeds),
    Target("oci-archive", _oci_archive, _oci_archive_seeds, (RestoreError,)),
)
