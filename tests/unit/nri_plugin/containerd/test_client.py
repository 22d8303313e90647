"""Against a real gRPC server: every status code becomes an error of ours, with a sentence and without an RPC dump."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from nri_plugin.containerd import client as module
from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import AlreadyExists, Containerd, NotFound
from shared.errors import RestoreError, Unavailable
from tests.support.fake_containerd import FakeContainerd

DIGEST = "sha256:" + "a" * 64
CODE = grpc.StatusCode
Call = Callable[[Containerd], Any]

CALLS: dict[str, tuple[str, Call]] = {
    "image_target": ("Images/Get", lambda client: client.image_target("x")),
    "images_by_digest": ("Images/List", lambda client: client.images_by_digest(DIGEST)),
    "read_content": ("Content/Read", lambda client: client.read_content(DIGEST)),
    "write_content": (
        "Content/Write",
        lambda client: client.write_content("r", io.BytesIO(b"x"), 1, DIGEST, lease="l"),
    ),
    "prepare": ("Snapshots/Prepare", lambda client: client.prepare("k", "p", lease="l")),
    "view": ("Snapshots/View", lambda client: client.view("k", "p", lease="l")),
    "mounts": ("Snapshots/Mounts", lambda client: client.mounts("k")),
    "commit": ("Snapshots/Commit", lambda client: client.commit("k", "n", lease="l")),
    "remove_snapshot": ("Snapshots/Remove", lambda client: client.remove_snapshot("k")),
    "has_snapshot": ("Snapshots/Stat", lambda client: client.has_snapshot("k")),
    "parent": ("Snapshots/Stat", lambda client: client.parent("k")),
    "was_pulled": ("Content/Info", lambda client: client.was_pulled(DIGEST)),
    "create_lease": ("Leases/Create", lambda client: client.create_lease("l", {})),
    "delete_lease": ("Leases/Delete", lambda client: client.delete_lease("l")),
    "leases": ("Leases/List", lambda client: client.leases("l")),
    "hold": ("Leases/AddResource", lambda client: client.hold("l", DIGEST, "content")),
    "release": ("Leases/DeleteResource", lambda client: client.release("l", DIGEST, "content")),
    "apply": ("Diff/Apply", lambda client: client.apply(api.Descriptor(digest=DIGEST), [])),
    "container": ("Containers/Get", lambda client: client.container("c")),
    "container_ids": ("Containers/List", lambda client: client.container_ids()),
}
"""Every call of the client, and the method it uses."""
FORGIVEN = {
    "write_content": {CODE.ALREADY_EXISTS},
    "remove_snapshot": {CODE.NOT_FOUND},
    "has_snapshot": {CODE.NOT_FOUND},
    "create_lease": {CODE.ALREADY_EXISTS},
    "delete_lease": {CODE.NOT_FOUND},
    "hold": {CODE.ALREADY_EXISTS},
    "release": {CODE.NOT_FOUND},
}
"""What is no failure: the state is already the wanted one."""
ERRORS = {
    CODE.NOT_FOUND: (NotFound, "NotFound"),
    CODE.ALREADY_EXISTS: (AlreadyExists, "AlreadyExists"),
    CODE.UNAVAILABLE: (Unavailable, "RuntimeAway"),
    CODE.DEADLINE_EXCEEDED: (Unavailable, "RuntimeSlow"),
    CODE.INTERNAL: (Unavailable, "RuntimeError"),
    CODE.FAILED_PRECONDITION: (Unavailable, "RuntimeError"),
    CODE.UNKNOWN: (Unavailable, "RuntimeError"),
    CODE.UNIMPLEMENTED: (Unavailable, "RuntimeError"),
    CODE.PERMISSION_DENIED: (Unavailable, "RuntimeError"),
}


def test_every_public_call_of_the_client_is_tested_here() -> None:
    public = {name for name, value in vars(Containerd).items() if callable(value) and not name.startswith("_")}
    assert public - {"close", "call", "read_json", "hold_snapshot"} == set(CALLS)


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("code", ERRORS, ids=lambda code: code.name)
def test_status_code_becomes_an_error_of_ours(
    fake: FakeContainerd, containerd: Containerd, name: str, code: grpc.StatusCode
) -> None:
    method, call = CALLS[name]
    fake.fail(method, code, "snapshot nri-restore-x: does not exist: not found")
    if name == "view" and code is CODE.ALREADY_EXISTS:
        fake.fail("Leases/AddResource", code)
        fake.fail("Snapshots/Stat", CODE.NOT_FOUND)
        fake.answer("Snapshots/Mounts", api.MountsResponse(mounts=[api.Mount(type="bind")]))
        assert [mount.type for mount in call(containerd)] == ["bind"]
        return
    if code in FORGIVEN.get(name, set()):
        assert not call(containerd)
        return
    kind, reason = ERRORS[code]
    with pytest.raises(RestoreError) as caught:
        call(containerd)
    assert type(caught.value) is kind
    assert caught.value.reason == reason
    assert caught.value.sentence.startswith("containerd ")
    assert "StatusCode" not in caught.value.sentence
    assert "rpc error" not in caught.value.sentence


def test_runtime_that_is_not_there_is_said_to_be_away(tmp_path: Path) -> None:
    client = Containerd(tmp_path / "nothing.sock", namespace="k8s.io", snapshotter="overlayfs")
    with pytest.raises(Unavailable) as caught:
        client.image_target("x")
    client.close()
    assert caught.value.reason == "RuntimeAway"
    assert caught.value.sentence == "containerd cannot be reached to find the image x; is it running?"


def test_runtime_that_answers_too_late_is_said_to_be_slow(
    fake: FakeContainerd, containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.hang("Images/Get", api.GetImageResponse())
    with pytest.raises(Unavailable) as caught:
        containerd.call(module.GET_IMAGE, api.GetImageRequest(name="x"), "find it", timeout_s=0.1)
    assert caught.value.reason == "RuntimeSlow"


def test_calls_carry_namespace_and_lease(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.answer("Snapshots/View", api.MountsResponse())
    fake.answer("Images/Get", api.GetImageResponse(image=api.Image(target=api.Descriptor(digest=DIGEST))))
    containerd.view("key", "parent", lease="mine")
    assert containerd.image_target("name").digest == DIGEST
    (_, view, first), (_, image, second) = fake.calls
    assert (first["containerd-namespace"], first["containerd-lease"]) == ("k8s.io", "mine")
    assert (second["containerd-namespace"], "containerd-lease" in second) == ("k8s.io", False)
    request = api.ViewSnapshotRequest.FromString(view)
    assert (request.snapshotter, request.key, request.parent) == ("overlayfs", "key", "parent")
    assert api.GetImageRequest.FromString(image).name == "name"


def test_blob_is_read_from_all_its_parts(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.answer("Content/Read", *(api.ReadContentResponse(data=part) for part in (b'{"a"', b":", b"1}")))
    assert containerd.read_content(DIGEST) == b'{"a":1}'
    assert containerd.read_json(DIGEST) == {"a": 1}
    assert api.ReadContentRequest.FromString(fake.asked("Content/Read")[0]).digest == DIGEST


def test_empty_blob_is_empty(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.answer("Content/Read", *())
    assert containerd.read_content(DIGEST) == b""


def test_blob_beyond_the_limit_is_refused_before_it_is_all_read(fake: FakeContainerd, containerd: Containerd) -> None:
    sent = 0

    def endless(request: bytes, context: grpc.ServicerContext) -> Iterator[api.ReadContentResponse]:
        nonlocal sent
        while context.is_active():
            sent += 1
            yield api.ReadContentResponse(data=bytes(1 << 20))

    fake.answers["Content/Read"] = endless
    with pytest.raises(Unavailable) as caught:
        containerd.read_content(DIGEST, limit_bytes=3 << 20)
    assert caught.value.reason == "BlobTooLarge"
    assert DIGEST in caught.value.sentence
    fake.answer("Content/Read", *[api.ReadContentResponse(data=bytes(1 << 20))] * 3)
    assert len(containerd.read_content(DIGEST, limit_bytes=3 << 20)) == 3 << 20


def test_stream_that_breaks_off_is_a_failure(fake: FakeContainerd, containerd: Containerd) -> None:
    def broken(request: bytes, context: grpc.ServicerContext) -> Iterator[api.ReadContentResponse]:
        yield api.ReadContentResponse(data=b'{"half":')
        context.abort(CODE.INTERNAL, "disk error")

    fake.answers["Content/Read"] = broken
    with pytest.raises(Unavailable, match="disk error"):
        containerd.read_json(DIGEST)


@pytest.mark.parametrize("blob", [b"", b"{", b"\xff\xfe", b"[1]", b'"text"', b"1", b"null", b"[" * 100_000])
def test_blob_that_is_no_json_object_is_an_image_damaged(
    fake: FakeContainerd, containerd: Containerd, blob: bytes
) -> None:
    fake.answer("Content/Read", api.ReadContentResponse(data=blob))
    with pytest.raises(Unavailable) as caught:
        containerd.read_json(DIGEST)
    assert caught.value.reason == "ImageDamaged"
    assert DIGEST in caught.value.sentence


def test_content_is_written_in_pieces_and_committed_under_its_digest(
    fake: FakeContainerd, containerd: Containerd, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", 4)
    fake.answer("Content/Write", api.WriteContentResponse())
    containerd.write_content("upload", io.BytesIO(b"0123456789"), 10, DIGEST, lease="mine")
    sent = [api.WriteContentRequest.FromString(each) for each in fake.streams["Content/Write"]]
    assert [each.data for each in sent] == [b"0123", b"4567", b"89", b""]
    assert [each.offset for each in sent] == [0, 4, 8, 10]
    assert [each.action for each in sent] == [api.WRITE, api.WRITE, api.WRITE, api.COMMIT]
    assert {(each.ref, each.total) for each in sent} == {("upload", 10)}
    assert sent[-1].expected == DIGEST
    assert fake.calls[0][2]["containerd-lease"] == "mine"


def test_images_are_listed_by_the_digest_they_point_at(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.answer("Images/List", api.ListImagesResponse(images=[api.Image(name="a"), api.Image(name="b")]))
    assert [image.name for image in containerd.images_by_digest(DIGEST)] == ["a", "b"]
    request = api.ListImagesRequest.FromString(fake.asked("Images/List")[0])
    assert list(request.filters) == [f"target.digest=={DIGEST}"]


def test_leases_are_those_of_the_prefix(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.answer("Leases/List", api.ListLeasesResponse(leases=[api.Lease(id="ours-1"), api.Lease(id="other")]))
    assert [lease.id for lease in containerd.leases("ours-")] == ["ours-1"]


def test_snapshot_is_held_before_it_is_looked_for(fake: FakeContainerd, containerd: Containerd) -> None:
    """The other way round, one whose last lease has just gone is seen and then collected."""
    fake.answer("Leases/AddResource", api.Empty())
    fake.answer("Snapshots/Stat", api.StatSnapshotResponse())
    assert containerd.hold_snapshot("mine", "key")
    assert [name for name, *_ in fake.calls] == ["Leases/AddResource", "Snapshots/Stat"]
    held = api.LeaseResourceRequest.FromString(fake.calls[0][1])
    assert (held.id, held.resource.id, held.resource.type) == ("mine", "key", "snapshots/overlayfs")
    fake.fail("Snapshots/Stat", CODE.NOT_FOUND)
    assert not containerd.hold_snapshot("mine", "key")


@pytest.mark.parametrize(("label", "pulled"), [("distribution.source.registry.example", True), ("gc.ref", False)])
def test_what_was_pulled_says_from_where(
    fake: FakeContainerd, containerd: Containerd, label: str, pulled: bool
) -> None:
    fake.answer("Content/Info", api.ContentInfoResponse(info={"labels": {f"containerd.io/{label}": "team/app"}}))
    assert containerd.was_pulled(DIGEST) is pulled


def test_parent_of_a_snapshot_is_what_it_was_made_on(fake: FakeContainerd, containerd: Containerd) -> None:
    fake.answer("Snapshots/Stat", api.StatSnapshotResponse(info={"parent": DIGEST}))
    assert containerd.parent("k") == DIGEST
