"""The root file system of a restored container, where its image alone is not it.

An archive image holds no base: base and rootfs diff are committed once per checkpoint image as a snapshot of the
runtime's own (shared by replicas, under the image's lease), and restore-runc mounts it below the container's own upper
directory. With an annotation the container's image is the base, and only what the container had changed is missing: it
goes into the container's own layer, where it was, so that the runtime's next checkpoint of it is complete.
Either way writable-layer accounting and clean-up stay the runtime's.
"""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO, Final

from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd, NotFound
from nri_plugin.containerd.images import pull
from nri_plugin.restore.images import LEASE_PREFIX, StoredImage, find_image, stored_image
from nri_plugin.restore.mounting import OPTIONS_LIMIT_BYTES, empty
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.pull_rights import Puller, WantedImage
from shared import oci
from shared.archive import CheckpointFiles
from shared.compression import Compression, sniff
from shared.errors import CheckpointInvalid, Refused, RestoreError, Unavailable
from shared.metadata import BaseImage, Checkpoint

BASE: Final = "checkpoint's base image"
MEDIA_TYPES = {
    Compression.NONE: oci.LAYER,
    Compression.GZIP: oci.LAYER_GZIP,
    Compression.ZSTD: oci.LAYER_ZSTD,
}


@dataclass(frozen=True)
class Overlay:
    """The overlay restore-runc mounts: lower directories topmost first, and the container's own two."""

    lower: tuple[str, ...]
    upper: str
    work: str
    extra: tuple[str, ...]
    """Options of the runtime's own mount that are none of these (index=off, volatile …)."""


@dataclass(frozen=True)
class Pulling:
    """How base images are pulled."""

    limit_s: float
    pod: Puller
    check: Callable[[Sequence[str]], None]
    """Gets the reference before its registry is asked for anything; raises where that is not allowed."""
    always: bool = False
    """Also what the node has: for each restore the registry is asked anew."""


def snapshot_name(image: StoredImage) -> str:
    """Name of the committed base+diff snapshot of a checkpoint image."""
    return f"{LEASE_PREFIX}rootfs-{image.digest.removeprefix('sha256:')}"


def find_base(containerd: Containerd, base: BaseImage) -> StoredImage | None:
    """The dump's base image in the node's store, by manifest digest, else by config digest; never by tag."""
    if base.digest:
        for image in containerd.images_by_digest(base.digest):
            return stored_image(containerd, image.target)
    if base.config_digest:
        try:
            return find_image(containerd, base.config_digest)
        except NotFound:
            return None
    return None


def base_names(containerd: Containerd, base: BaseImage) -> list[str]:
    """What the base image is called: by the node, which knows where it has it from, else by the checkpoint."""
    if (found := find_base(containerd, base)) is not None:
        return [each.name for each in containerd.images_by_digest(found.target)]
    return [name for name in (base.reference or base.name,) if name]


def _reference_by_digest(base: BaseImage) -> str | None:
    """What to pull; None when the engine recorded no registry digest. A tag may have moved since."""
    return base.reference if base.digest and base.reference and "@" in base.reference else None


def _base_unknown(base: BaseImage) -> Refused:
    return Refused(
        "BaseImageUnknown",
        f"the checkpoint names its base image only as {base.reference or base.name or 'nothing'}, without a registry "
        "digest, and the node does not have it; pull it on the node, or build the checkpoint image with "
        "--format layered",
    )


def check_diff(checkpoint: Checkpoint) -> None:
    """Raises CheckpointInvalid("MetadataMissing") for an archive whose changes to the root file system were lost.

    containerd's archives always have a rootfs diff, if only an empty one; those of CRI-O and Podman need not.
    """
    if checkpoint.engine == "containerd" and checkpoint.rootfs_diff is None:
        raise CheckpointInvalid(
            "MetadataMissing",
            "the checkpoint image has no rootfs-diff.tar, so files the container changed would be lost; build the "
            "image from the whole archive",
        )


def check_base(containerd: Containerd, image: StoredImage, checkpoint: Checkpoint) -> None:
    """Raises Refused("BaseImageUnknown") where ``require_base`` would: what can be pulled is not looked for here."""
    if _reference_by_digest(checkpoint.base) or containerd.has_snapshot(snapshot_name(image)):
        return
    if find_base(containerd, checkpoint.base) is None:
        raise _base_unknown(checkpoint.base)


def require_base(containerd: Containerd, base: BaseImage, pulling: Pulling) -> StoredImage:
    """The dump's base image, pulled when the node does not have it.

    Raises what ``pull_base`` does, and PullNotAllowed where the node has it and the pod could not pull it.
    """
    found = find_base(containerd, base)
    if found is None:
        return pull_base(containerd, base, pulling)
    pulling.pod.require(_wanted(containerd, found))
    return found


def check_standing(containerd: Containerd, base: BaseImage, snapshot: str, pulling: Pulling) -> None:
    """Raises PullNotAllowed unless the pod could pull the base image that the committed ``snapshot`` was made on.

    That image may be gone by now. Then it can be asked for by the checkpoint's name of it, which proves nothing unless
    the same layers come of it.
    """
    chain_id = containerd.parent(snapshot)
    found = find_base(containerd, base)
    if found is not None and found.chain_id == chain_id:
        pulling.pod.require(_wanted(containerd, found))
    else:
        reference = _reference_by_digest(base)
        names = (reference,) if reference else ()
        pulling.pod.require(WantedImage(BASE, chain_id, base.digest or "", names))


def _wanted(containerd: Containerd, base: StoredImage) -> WantedImage:
    """By the node's names: the checkpoint's could lead to a registry that says yes to everything."""
    names = [each.name for each in containerd.images_by_digest(base.target)]
    return WantedImage(BASE, base.chain_id, base.target, names)


def pull_base(containerd: Containerd, base: BaseImage, pulling: Pulling) -> StoredImage:
    """Pulls the dump's base image by digest: the registry is asked also for what the node has.

    Raises Refused("BaseImageUnknown") when the dump recorded no digest, Unavailable("BaseImageMissing") with the
    registry's reason when the image cannot be had, and what ``pulling.check`` raises.
    """
    reference = _reference_by_digest(base)
    if reference is None:
        raise _base_unknown(base)
    pulling.check([reference])
    try:
        login = pull(
            containerd,
            reference,
            timeout_s=pulling.limit_s,
            cancelled=pulling.pod.cancelled,
            logins=pulling.pod.logins,
        )
    except Unavailable as error:
        if error.reason != "ImagePullFailed":
            raise
        raise Unavailable(
            "BaseImageMissing",
            f"the checkpoint's base image is not to be had on this node: {error.sentence}; "
            "make it available there, or build the checkpoint image with --format layered",
        ) from error
    found = find_base(containerd, base)
    if found is None:
        raise Unavailable("BaseImageMissing", f"the runtime pulled {reference} but does not list its digest")
    pulling.pod.granted(found.chain_id, reference, login)
    return found


def ensure_snapshot(
    containerd: Containerd,
    image: StoredImage,
    checkpoint: Checkpoint,
    files: CheckpointFiles,
    pulling: Pulling,
    *,
    lock: Callable[[str], AbstractContextManager[None]],
    making: Callable[[], object],
) -> str:
    """The committed base+diff snapshot of ``image``, made if it is not there; ``making`` is called before.

    Looked for before anything is pulled: a base image that is gone does not matter once the snapshot stands.
    """
    name = snapshot_name(image)
    if pulling.always:
        pull_base(containerd, checkpoint.base, pulling)
    if containerd.hold_snapshot(image.lease, name):
        check_standing(containerd, checkpoint.base, name, pulling)
        return name
    # Pulled outside the lock: a replica that is cancelled must not wait for another's pull.
    base = require_base(containerd, checkpoint.base, pulling)
    with lock(image.digest):
        if containerd.hold_snapshot(image.lease, name):
            return name
        making()
        key = f"{name}-making"
        containerd.remove_snapshot(key)  # of a worker that was killed at it
        mounts = containerd.prepare(key, base.chain_id, lease=image.lease)
        try:
            apply_diff(containerd, image, checkpoint, files, mounts)
            containerd.commit(key, name, lease=image.lease)
        except BaseException:
            containerd.remove_snapshot(key)
            raise
    return name


def fill_own(
    containerd: Containerd,
    image: StoredImage,
    base: StoredImage,
    checkpoint: Checkpoint,
    files: CheckpointFiles,
    snapshot_key: str,
    *,
    lock: Callable[[str], AbstractContextManager[None]],
) -> Overlay:
    """Puts what the dumped container had changed into the own layer of one that was created from ``base``.

    The layer is as it was when this fails: the container may still be started afresh. Returns how to mount the
    container's own root again, so that nothing is seen of what the kernel already knows of it.

    Raises Refused("SnapshotterUnsupported"), Refused("BaseImageDiffers"), Unavailable("RootfsDiffFailed").
    """
    mounts = containerd.mounts(snapshot_key)
    own = _own_overlay(mounts)
    try:
        # One at a time: replicas would store and release the same diff.
        with lock(image.digest):
            if image.layered:
                for layer in changed_layers(containerd, image, base):
                    _apply(containerd, layer, mounts)
            else:
                apply_diff(containerd, image, checkpoint, files, mounts)
    except BaseException:
        empty(Path(own.upper))
        raise
    return own


def changed_layers(containerd: Containerd, image: StoredImage, base: StoredImage) -> Sequence[api.Descriptor]:
    """The layers of a layered image above ``base``, without the last, which is the checkpoint itself."""
    count = len(base.diff_ids)
    if image.diff_ids[:count] != base.diff_ids:
        raise Refused(
            "BaseImageDiffers",
            f"the checkpoint image {image.digest} was built on other layers than those of the container's image; use "
            "the base image it was built with",
        )
    manifest = oci.parse_document(containerd.read_content(image.digest))
    assert isinstance(manifest, oci.Manifest), "stored_image has read it"
    return [
        api.Descriptor(media_type=layer.media_type, digest=layer.digest, size=layer.size)
        for layer in manifest.layers[count:-1]
    ]


def apply_diff(
    containerd: Containerd,
    image: StoredImage,
    checkpoint: Checkpoint,
    files: CheckpointFiles,
    mounts: Sequence[api.Mount],
) -> None:
    """Applies what the dumped container had changed and deleted to a snapshot of its base."""
    if checkpoint.rootfs_diff:
        with files.open(checkpoint.rootfs_diff) as diff:
            apply_layer(containerd, image.lease, diff, mounts)
    if checkpoint.deleted_files:
        apply_layer(containerd, image.lease, io.BytesIO(whiteouts(checkpoint.deleted_files)), mounts)


def whiteouts(paths: Sequence[str]) -> bytes:
    """A plain layer that deletes ``paths`` (absolute, in the container); image-spec layer.md, Whiteouts."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path in paths:
            parent, _, last = path.strip("/").rpartition("/")
            if last and ".." not in path.split("/"):
                tar.addfile(tarfile.TarInfo(f"{parent}/.wh.{last}" if parent else f".wh.{last}"))
    return buffer.getvalue()


def apply_layer(containerd: Containerd, lease: str, layer: BinaryIO, mounts: Sequence[api.Mount]) -> None:
    """Unpacks a seekable layer (plain, gzip or zstd tar) onto ``mounts``.

    containerd's Diff.Apply has its own path safety, and reads from the content store: the layer goes there under our
    lease, and only for that long.
    """
    start = layer.read(4)
    digest = hashlib.sha256(start)
    size = len(start)
    while chunk := layer.read(1 << 20):
        digest.update(chunk)
        size += len(chunk)
    # As it was judged: containerd must not take for a plain tar what we decompressed.
    descriptor = api.Descriptor(media_type=MEDIA_TYPES[sniff(start)], digest=f"sha256:{digest.hexdigest()}", size=size)
    layer.seek(0)
    # Held before it is written: what is there already may be another container's, about to be collected.
    containerd.hold(lease, descriptor.digest, "content")
    try:
        containerd.write_content(f"nri-restore-{descriptor.digest}", layer, size, descriptor.digest, lease=lease)
        _apply(containerd, descriptor, mounts)
    finally:
        containerd.release(lease, descriptor.digest, "content")


def _apply(containerd: Containerd, layer: api.Descriptor, mounts: Sequence[api.Mount]) -> None:
    try:
        containerd.apply(layer, mounts)
    except RestoreError as error:
        raise Unavailable("RootfsDiffFailed", f"the checkpoint's rootfs diff cannot be applied: {error}") from error


def lower_directories(containerd: Containerd, snapshot: str, lease: str) -> tuple[str, ...]:
    """The directories of a committed snapshot, topmost first.

    Only a view tells them; the lease keeps them once the view is gone again.
    """
    key = f"{lease}-peek-{os.urandom(4).hex()}"
    view = containerd.view(key, snapshot, lease=lease)
    containerd.remove_snapshot(key)
    return (view[0].source,) if view[0].type == "bind" else tuple(_options(view)["lowerdir"].split(":"))


def over_lower(containerd: Containerd, snapshot_key: str, lower: tuple[str, ...]) -> Overlay:
    """The container's own upper directory over ``lower``; raises Refused("SnapshotterUnsupported")."""
    return replace(_own_overlay(containerd.mounts(snapshot_key)), lower=lower)


def own(containerd: Containerd, snapshot_key: str) -> Overlay | None:
    """A container's root as the runtime mounts it; None where it is no overlay and no directory."""
    mounts = containerd.mounts(snapshot_key)
    if len(mounts) == 1 and mounts[0].type == "bind":
        return Overlay((mounts[0].source,), "", "", ())
    try:
        return _own_overlay(mounts)
    except Refused:
        return None


def _own_overlay(mounts: Sequence[api.Mount]) -> Overlay:
    """A container's root as the runtime mounts it; anything but an overlay with an upper directory is refused."""
    options = _options(mounts)
    if len(mounts) != 1 or mounts[0].type != "overlay" or not {"lowerdir", "upperdir", "workdir"} <= options.keys():
        raise Refused(
            "SnapshotterUnsupported",
            "checkpoint images of the archive format, and those named by an annotation, need the overlayfs "
            f"snapshotter, this container uses {mounts[0].type if mounts else 'none'}; build the image with --format "
            "layered and make it the container's image",
        )
    named = {"lowerdir", "upperdir", "workdir"}
    extra = tuple(option for option in mounts[0].options if option.partition("=")[0] not in named)
    return Overlay(tuple(options["lowerdir"].split(":")), options["upperdir"], options["workdir"], extra)


def _options(mounts: Sequence[api.Mount]) -> dict[str, str]:
    return {name: value for mount in mounts for name, _, value in (option.partition("=") for option in mount.options)}


def write_overlay(plan: Plan, name: str, overlay: Overlay) -> None:
    """Puts an overlay into the plan: its options in the file ``name``, relative to links in the directory ``l``.

    mount(2) takes one page of options; from inside that directory each layer is one number.
    """
    links = plan.path / "l"
    links.mkdir(mode=0o700, exist_ok=True)
    for old in links.iterdir():
        old.unlink()
    for number, lower in enumerate(overlay.lower):
        (links / str(number)).symlink_to(lower)
    (links / "u").symlink_to(overlay.upper)
    (links / "w").symlink_to(overlay.work)
    lowers = ":".join(str(number) for number in range(len(overlay.lower)))
    options = ",".join((*overlay.extra, f"lowerdir={lowers}", "upperdir=u", "workdir=w"))
    if len(options) > OPTIONS_LIMIT_BYTES:
        raise Refused("TooManyLayers", f"the base image has {len(overlay.lower)} layers, too many for one overlay")
    plan.write(name, options + "\n")
