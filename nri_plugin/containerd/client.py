"""Calls on a containerd daemon, for one namespace: images, content, snapshots, leases, diff, containers.

Source: containerd ``api/services/*/v1``. Every failure is an error of ours, never an RPC dump.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final, TypeVar

import grpc

from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.rpc import Method, Reply, Request, code_of, connect, details_of, unary
from shared.errors import Refused, RestoreError, Unavailable

QUICK_S = 10.0
"""Deadline of calls that only touch containerd's own database."""
APPLY_S = 600.0
"""Deadline of calls that write a layer to disk."""
CHUNK_BYTES = 1 << 20
JSON_LIMIT_BYTES = 8 << 20
"""Largest manifest or config read; containerd's own limit is 8 MiB (core/images/image.go MaxManifestSize)."""

T = TypeVar("T")


class NotFound(RestoreError):
    """The runtime does not have the named object."""


class AlreadyExists(RestoreError):
    """The runtime has an object of that name already."""


def layered_needed() -> Refused:
    """What is said where ``layered_only`` holds."""
    return Refused(
        "LayeredImageNeeded",
        "on CRI-O only layered checkpoint images are restored; build it with kubectl restore build --format layered, "
        "and make it the container's image, without an annotation",
    )


def failure(error: grpc.RpcError, what: str) -> RestoreError:
    """Our error for a failed call; ``what`` says what was tried, as in ``containerd cannot <what>``."""
    code, details = code_of(error), details_of(error)
    if code == grpc.StatusCode.NOT_FOUND:
        return NotFound("NotFound", f"containerd cannot {what}: {details}")
    if code == grpc.StatusCode.ALREADY_EXISTS:
        return AlreadyExists("AlreadyExists", f"containerd cannot {what}: {details}")
    if code == grpc.StatusCode.DEADLINE_EXCEEDED:
        return Unavailable("RuntimeSlow", f"containerd did not {what} in time; the next attempt tries again")
    if code == grpc.StatusCode.UNAVAILABLE:
        return Unavailable("RuntimeAway", f"containerd cannot be reached to {what}; is it running?")
    return Unavailable("RuntimeError", f"containerd cannot {what}: {details}")


def method(service: str, name: str, request: type[Request], reply: type[Reply]) -> Method[Request, Reply]:
    return Method(f"/containerd.services.{service}.v1.{service.capitalize()}/{name}", request, reply)


GET_IMAGE = method("images", "Get", api.GetImageRequest, api.GetImageResponse)
LIST_IMAGES = method("images", "List", api.ListImagesRequest, api.ListImagesResponse)
PREPARE = method("snapshots", "Prepare", api.PrepareSnapshotRequest, api.MountsResponse)
VIEW = method("snapshots", "View", api.ViewSnapshotRequest, api.MountsResponse)
MOUNTS = method("snapshots", "Mounts", api.SnapshotRequest, api.MountsResponse)
COMMIT = method("snapshots", "Commit", api.CommitSnapshotRequest, api.Empty)
REMOVE_SNAPSHOT = method("snapshots", "Remove", api.SnapshotRequest, api.Empty)
STAT_SNAPSHOT = method("snapshots", "Stat", api.SnapshotRequest, api.StatSnapshotResponse)
CONTENT_INFO = method("content", "Info", api.ContentInfoRequest, api.ContentInfoResponse)
CREATE_LEASE = method("leases", "Create", api.CreateLeaseRequest, api.CreateLeaseResponse)
DELETE_LEASE = method("leases", "Delete", api.DeleteLeaseRequest, api.Empty)
LIST_LEASES = method("leases", "List", api.ListLeasesRequest, api.ListLeasesResponse)
ADD_RESOURCE = method("leases", "AddResource", api.LeaseResourceRequest, api.Empty)
DELETE_RESOURCE = method("leases", "DeleteResource", api.LeaseResourceRequest, api.Empty)
APPLY = method("diff", "Apply", api.ApplyRequest, api.ApplyResponse)
GET_CONTAINER = method("containers", "Get", api.GetContainerRequest, api.GetContainerResponse)
LIST_CONTAINERS = method("containers", "List", api.ListContainersRequest, api.ListContainersResponse)


CRI_METADATA: Final = "io.cri-containerd.container.metadata"
"""Extension of a containerd container that holds the CRI's own record (pkg/cri/store/container/metadata.go)."""

SOURCE_LABEL: Final = "containerd.io/distribution.source."
"""Begins the labels that say which repositories of a registry a blob was pulled from."""


class Containerd:
    """A connection to one containerd; safe to use from several threads."""

    layered_only = False
    """Whether nothing but a layered checkpoint image that is the container's own can be restored."""
    tells_of_failures = True
    """Whether NRI hears of the end of a container that could not be created."""

    def __init__(self, socket: Path, *, namespace: str, snapshotter: str) -> None:
        self.channel = connect(socket)
        self.namespace = namespace
        self.snapshotter = snapshotter

    def close(self) -> None:
        self.channel.close()

    def call(
        self,
        bound: Method[Request, Reply],
        request: Request,
        what: str,
        *,
        lease: str | None = None,
        timeout_s: float = QUICK_S,
    ) -> Reply:
        """One call; objects it creates belong to ``lease``, without which garbage collection takes them at once."""
        try:
            return unary(self.channel, bound)(request, timeout_s=timeout_s, metadata=self._metadata(lease))
        except grpc.RpcError as error:
            raise failure(error, what) from error

    def _metadata(self, lease: str | None) -> dict[str, str]:
        metadata = {"containerd-namespace": self.namespace}
        if lease:
            metadata["containerd-lease"] = lease
        return metadata

    # images -------------------------------------------------------------------------------------------------------
    def image_target(self, name: str) -> api.Descriptor:
        """What the image called ``name`` points at; raises NotFound."""
        return self.call(GET_IMAGE, api.GetImageRequest(name=name), f"find the image {name}").image.target

    def images_by_digest(self, digest: str) -> Sequence[api.Image]:
        """Images whose manifest or index has ``digest``."""
        request = api.ListImagesRequest(filters=[f"target.digest=={digest}"])
        return self.call(LIST_IMAGES, request, "list images").images

    # content ------------------------------------------------------------------------------------------------------
    def read_content(self, digest: str, limit_bytes: int = JSON_LIMIT_BYTES) -> bytes:
        """The whole blob; raises NotFound, or Unavailable("BlobTooLarge") above ``limit_bytes``."""
        read = self.channel.unary_stream(
            "/containerd.services.content.v1.Content/Read",
            request_serializer=api.ReadContentRequest.SerializeToString,
            response_deserializer=api.ReadContentResponse.FromString,
        )
        data = bytearray()
        request = api.ReadContentRequest(digest=digest)
        try:
            for part in read(request, timeout=QUICK_S, metadata=tuple(self._metadata(None).items())):
                data += part.data
                if len(data) > limit_bytes:
                    raise Unavailable("BlobTooLarge", f"{digest} is larger than {limit_bytes} bytes")
        except grpc.RpcError as error:
            raise failure(error, f"read {digest}") from error
        return bytes(data)

    def was_pulled(self, digest: str) -> bool:
        """Whether a manifest or index came from a registry: a pull labels it with the repository, an import does not.

        Source: containerd core/remotes/docker/handler.go (AppendDistributionSourceLabel). Raises NotFound.
        """
        info = self.call(CONTENT_INFO, api.ContentInfoRequest(digest=digest), f"find {digest}").info
        return any(label.startswith(SOURCE_LABEL) for label in info.labels)

    def read_json(self, digest: str) -> Mapping[str, Any]:
        """A manifest, index or config blob; raises NotFound, or Unavailable("ImageDamaged") if it is no JSON object."""
        try:
            document = json.loads(self.read_content(digest))
        except (ValueError, RecursionError) as error:
            raise Unavailable("ImageDamaged", f"{digest} in containerd's store is no JSON: {error}") from error
        if not isinstance(document, dict):
            raise Unavailable("ImageDamaged", f"{digest} in containerd's store is no JSON object")
        return document

    def write_content(self, ref: str, source: BinaryIO, size: int, digest: str, *, lease: str) -> None:
        """Stores ``size`` bytes under ``digest``; done already is fine. ``ref`` names the upload."""
        write = self.channel.stream_stream(
            "/containerd.services.content.v1.Content/Write",
            request_serializer=api.WriteContentRequest.SerializeToString,
            response_deserializer=api.WriteContentResponse.FromString,
        )

        def parts() -> Iterator[api.WriteContentRequest]:
            offset = 0
            while chunk := source.read(CHUNK_BYTES):
                yield api.WriteContentRequest(action=api.WRITE, ref=ref, total=size, offset=offset, data=chunk)
                offset += len(chunk)
            yield api.WriteContentRequest(action=api.COMMIT, ref=ref, total=size, offset=offset, expected=digest)

        try:
            for _ in write(parts(), timeout=APPLY_S, metadata=tuple(self._metadata(lease).items())):
                pass
        except grpc.RpcError as error:
            if code_of(error) != grpc.StatusCode.ALREADY_EXISTS:
                raise failure(error, f"store {digest}") from error

    # snapshots ----------------------------------------------------------------------------------------------------
    def view(self, key: str, parent: str, *, lease: str) -> Sequence[api.Mount]:
        """A read-only snapshot of ``parent`` (a chain ID); one of that key is used, and held by ``lease``."""
        request = api.ViewSnapshotRequest(snapshotter=self.snapshotter, key=key, parent=parent)
        try:
            return self.call(VIEW, request, f"view {parent}", lease=lease).mounts
        except AlreadyExists:
            self.hold_snapshot(lease, key)
            return self.mounts(key)

    def prepare(self, key: str, parent: str, *, lease: str) -> Sequence[api.Mount]:
        request = api.PrepareSnapshotRequest(snapshotter=self.snapshotter, key=key, parent=parent)
        return self.call(PREPARE, request, f"prepare a snapshot on {parent}", lease=lease).mounts

    def mounts(self, key: str) -> Sequence[api.Mount]:
        request = api.SnapshotRequest(snapshotter=self.snapshotter, key=key)
        return self.call(MOUNTS, request, f"find the mounts of snapshot {key}").mounts

    def commit(self, key: str, name: str, *, lease: str) -> None:
        request = api.CommitSnapshotRequest(snapshotter=self.snapshotter, key=key, name=name)
        self.call(COMMIT, request, f"commit snapshot {name}", lease=lease)

    def remove_snapshot(self, key: str) -> None:
        """Removes a snapshot; one that is not there is fine."""
        request = api.SnapshotRequest(snapshotter=self.snapshotter, key=key)
        try:
            self.call(REMOVE_SNAPSHOT, request, f"remove snapshot {key}")
        except NotFound:
            return

    def has_snapshot(self, key: str) -> bool:
        request = api.SnapshotRequest(snapshotter=self.snapshotter, key=key)
        try:
            self.call(STAT_SNAPSHOT, request, f"find snapshot {key}")
        except NotFound:
            return False
        return True

    def parent(self, key: str) -> str:
        """What a snapshot was made on (a chain ID); raises NotFound."""
        request = api.SnapshotRequest(snapshotter=self.snapshotter, key=key)
        return self.call(STAT_SNAPSHOT, request, f"find snapshot {key}").info.parent

    # leases -------------------------------------------------------------------------------------------------------
    def create_lease(self, lease: str, labels: Mapping[str, str]) -> None:
        """Creates a lease; one of that name is left as it is."""
        request = api.CreateLeaseRequest(id=lease, labels=dict(labels))
        try:
            self.call(CREATE_LEASE, request, f"create the lease {lease}")
        except AlreadyExists:
            return

    def delete_lease(self, lease: str) -> None:
        """Deletes a lease; what only it kept goes with containerd's next garbage collection."""
        try:
            self.call(DELETE_LEASE, api.DeleteLeaseRequest(id=lease), f"delete the lease {lease}")
        except NotFound:
            return

    def leases(self, prefix: str) -> Sequence[api.Lease]:
        """Leases whose id starts with ``prefix``."""
        found: Iterable[api.Lease] = self.call(LIST_LEASES, api.ListLeasesRequest(), "list leases").leases
        return [lease for lease in found if lease.id.startswith(prefix)]

    def hold(self, lease: str, resource: str, kind: str) -> None:
        """Adds a resource to a lease; ``kind`` is ``content`` or ``snapshots/<snapshotter>``."""
        request = api.LeaseResourceRequest(id=lease, resource=api.Resource(id=resource, type=kind))
        try:
            self.call(ADD_RESOURCE, request, f"hold {resource}")
        except AlreadyExists:
            return

    def hold_snapshot(self, lease: str, key: str) -> bool:
        """Adds a snapshot to a lease; whether it is there, which from then on it stays.

        Held first, then looked for: one whose last lease has just gone would be seen and then collected.
        """
        self.hold(lease, key, f"snapshots/{self.snapshotter}")
        return self.has_snapshot(key)

    def release(self, lease: str, resource: str, kind: str) -> None:
        request = api.LeaseResourceRequest(id=lease, resource=api.Resource(id=resource, type=kind))
        try:
            self.call(DELETE_RESOURCE, request, f"release {resource}")
        except NotFound:
            return

    # diff, containers ---------------------------------------------------------------------------------------------
    def apply(self, diff: api.Descriptor, mounts: Sequence[api.Mount]) -> None:
        """Unpacks a layer that is in the content store onto ``mounts``, whiteouts included."""
        request = api.ApplyRequest(diff=diff, mounts=mounts)
        self.call(APPLY, request, f"apply the layer {diff.digest}", timeout_s=APPLY_S)

    def container(self, container_id: str) -> api.Container:
        """A container's record with its final OCI spec; raises NotFound until the runtime has made it."""
        request = api.GetContainerRequest(id=container_id)
        return self.call(GET_CONTAINER, request, f"find the container {container_id[:12]}").container

    def container_ids(self) -> frozenset[str]:
        reply = self.call(LIST_CONTAINERS, api.ListContainersRequest(), "list containers")
        return frozenset(container.id for container in reply.containers)
