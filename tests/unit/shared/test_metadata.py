from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from shared.metadata import BaseImage, Checkpoint, read_checkpoint
from tests.support.checkpoints import (
    BASE_DIGEST,
    BASE_REFERENCE,
    CONTAINER_ID,
    POD_UID,
    config_dump,
    containerd,
    crio,
    podman,
    runtime_spec,
)

Refused = Callable[..., Any]
Open = Callable[[dict[str, bytes]], CheckpointFiles]


def test_containerd(open_files: Open) -> None:
    found = read_checkpoint(open_files(containerd()))
    assert found.engine == "containerd"
    assert (found.container_id, found.container_name) == (CONTAINER_ID, "app")
    assert (found.pod_name, found.pod_namespace, found.pod_uid) == ("app-pod", "shop", POD_UID)
    assert found.base == BaseImage("registry.example/app:1", BASE_REFERENCE, BASE_DIGEST, None)
    assert found.runtime == "io.containerd.runc.v2"
    assert found.created_at == datetime(2026, 11, 24, 3, 24, 10, 685814, UTC)
    assert found.checkpointed_at == datetime(2026, 11, 24, 3, 24, 13, 861955, UTC)
    assert found.spec.args == ("/bin/app", "--serve")
    assert (found.log_member, found.rootfs_diff, found.deleted_files) == ("container.log", "rootfs-diff.tar", ())
    assert found.criu_version == "4.2.1"


def test_crio(open_files: Open) -> None:
    found = read_checkpoint(open_files(crio()))
    assert found.engine == "CRI-O"
    assert (found.container_name, found.pod_name, found.pod_namespace) == ("app", "app-pod", "shop")
    assert found.pod_uid == POD_UID
    assert found.base == BaseImage("registry.example/app:1", "d" * 64, None, "sha256:" + "d" * 64)
    assert found.log_member == "io.kubernetes.cri-o.LogPath"
    assert found.deleted_files == ("/etc/motd",)
    assert found.criu_version == "3.19"


def test_podman(open_files: Open) -> None:
    found = read_checkpoint(open_files(podman()))
    assert found.engine == "Podman"
    assert (found.container_name, found.pod_name, found.pod_uid) == ("web", "", "")
    assert found.base.config_digest == "sha256:" + "e" * 64
    assert (found.log_member, found.deleted_files, found.criu_version) == ("ctr.log", ("/etc/motd",), None)


def test_what_an_archive_lacks_is_none(open_files: Open) -> None:
    files = containerd()
    for name in ("container.log", "rootfs-diff.tar", "dump.log", "status"):
        del files[name]
    found = read_checkpoint(open_files(files))
    assert (found.log_member, found.rootfs_diff, found.criu_version) == (None, None, None)
    assert found.container_name == "app"


def test_names_come_from_the_kubelets_labels_when_the_spec_has_none(open_files: Open) -> None:
    found = read_checkpoint(open_files(containerd(spec=runtime_spec())))
    assert (found.container_name, found.pod_name, found.pod_namespace) == ("app", "app-pod", "shop")


@pytest.mark.parametrize(
    "missing",
    [
        ["config.dump"],
        ["spec.dump"],
        ["checkpoint/inventory.img"],
        ["config.dump", "spec.dump"],
        ["config.dump", "checkpoint/inventory.img"],
    ],
)
def test_every_missing_file_is_named(missing: list[str], open_files: Open, refused: Refused) -> None:
    files = {name: content for name, content in containerd().items() if name not in missing}
    with refused("MetadataMissing", "not a container checkpoint", *missing):
        read_checkpoint(open_files(files))


def test_archive_of_containerd_without_its_last_file_was_cut_off(open_files: Open, refused: Refused) -> None:
    files = containerd()
    del files["status.dump"]
    with refused("MetadataMissing", "status.dump"):
        read_checkpoint(open_files(files))


@pytest.mark.parametrize("version", ["3.16", "4.2.1", "4.0-dev", "3.17.1-2~bpo"])
def test_criu_version_as_distributions_write_it(version: str, open_files: Open) -> None:
    log = f"(00.000000) CRIU run id = x\n(00.000132) Version: {version} (gitid v{version})\n".encode()
    assert read_checkpoint(open_files(containerd() | {"dump.log": log})).criu_version == version


@pytest.mark.parametrize(
    "log", [b"", b"\xff\xfe", b"Version: evil (gitid 0)\n", b"Version: 4.2.1", b"x" * 70_000 + b"\nVersion: 4.2 (g)\n"]
)
def test_log_without_a_version_in_its_first_lines(log: bytes, open_files: Open) -> None:
    assert read_checkpoint(open_files(containerd() | {"dump.log": log})).criu_version is None


@pytest.mark.parametrize(
    ("reference", "digest", "config_digest"),
    [
        (f"repo@sha256:{'a' * 64}", f"sha256:{'a' * 64}", None),
        (f"host:5000/repo:tag@sha256:{'a' * 64}", f"sha256:{'a' * 64}", None),
        (f"sha256:{'a' * 64}", None, f"sha256:{'a' * 64}"),
        ("a" * 64, None, f"sha256:{'a' * 64}"),
        ("repo:tag", None, None),
        (f"repo@sha256:{'A' * 64}", None, None),
        (f"repo@sha512:{'a' * 128}", None, None),
    ],
)
def test_base_image_digests(reference: str, digest: str | None, config_digest: str | None, open_files: Open) -> None:
    base = read_checkpoint(open_files(containerd(config=config_dump(rootfsImageRef=reference)))).base
    assert (base.reference, base.digest, base.config_digest) == (reference, digest, config_digest)


@pytest.mark.parametrize("key", ["rootfsImageRef", "rootfsImageName", "rootfsImage"])
@pytest.mark.parametrize("value", ["a b", "a\nb", "-flag", "a;b", "$(x)", "é", "x" * 2000, "../x y"])
def test_what_is_no_image_reference_is_refused(key: str, value: str, open_files: Open, refused: Refused) -> None:
    changes = {"rootfsImageName": "", key: value}
    with refused("MetadataMalformed", "config.dump", key):
        read_checkpoint(open_files(containerd(config=config_dump(**changes))))


@pytest.mark.parametrize(
    "value", ["yesterday", "2026-13-01T00:00:00Z", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:00"]
)
def test_what_is_no_time_is_refused(value: str, open_files: Open, refused: Refused) -> None:
    with refused("MetadataMalformed", "config.dump", "checkpointedTime"):
        read_checkpoint(open_files(containerd(config=config_dump(checkpointedTime=value))))


def test_gos_zero_time_is_no_time(open_files: Open) -> None:
    found = read_checkpoint(open_files(containerd(config=config_dump(createdTime="0001-01-01T00:00:00Z"))))
    assert found.created_at is None


WRONG = ["text", 5, True, 1.5, [], [1], {}, {"a": 1}, "\ud800", "a\0b", -1]
CONFIG_TEXTS = ["id", "name", "rootfsImageRef", "rootfsImageName", "runtime", "createdTime", "checkpointedTime"]


@pytest.mark.parametrize("key", CONFIG_TEXTS)
@pytest.mark.parametrize("value", [value for value in WRONG if value != "text"], ids=repr)
def test_config_field_of_a_wrong_type_is_named(key: str, value: Any, open_files: Open, refused: Refused) -> None:
    config = config_dump(**{key: value})
    files = containerd(spec=runtime_spec(), config=config)
    files["status.dump"] = b"{}"
    with refused("MetadataMalformed", "config.dump", key):
        read_checkpoint(open_files(files))


@pytest.mark.parametrize("name", ["config.dump", "spec.dump", "status.dump"])
@pytest.mark.parametrize(
    "document",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b'"x"',
        b"\xff",
        b'{"id":NaN}',
        b'{"a":1,"a":2}',
        b"[" * 100_000,
        b'{"a":' * 5_000,
        b'{"id":' + b"9" * 10_000 + b"}",
    ],
    ids=lambda document: document[:12].decode(errors="replace"),
)
def test_document_that_is_no_object_is_refused(name: str, document: bytes, open_files: Open, refused: Refused) -> None:
    with refused("MetadataMalformed", name):
        read_checkpoint(open_files(containerd() | {name: document}))


@pytest.mark.parametrize("name", ["config.dump", "spec.dump", "status.dump"])
def test_document_of_many_megabytes_is_refused(name: str, open_files: Open, refused: Refused) -> None:
    with refused("FileTooLarge", name):
        read_checkpoint(open_files(containerd() | {name: b'{"a":"' + b"x" * (5 << 20) + b'"}'}))


def test_malformed_labels_of_the_kubelet_are_refused(open_files: Open, refused: Refused) -> None:
    with refused("MetadataMalformed", "status.dump", "labels"):
        read_checkpoint(open_files(containerd() | {"status.dump": b'{"labels":[]}'}))


@pytest.mark.parametrize("labels", ["[]", "{", '{"a":1}', '"x"'])
def test_malformed_labels_of_crio_are_refused(labels: str, open_files: Open, refused: Refused) -> None:
    files = crio()
    spec = json.loads(files["spec.dump"])
    spec["annotations"]["io.kubernetes.cri-o.Labels"] = labels
    with refused("MetadataMalformed", "io.kubernetes.cri-o.Labels"):
        read_checkpoint(open_files(files | {"spec.dump": json.dumps(spec).encode()}))


@pytest.mark.parametrize(
    "paths", [["etc/motd"], ["/"], ["/a/../../b"], [""], [1], {}, "x", ["/" + "a" * 5000], ["/a\0b"], ["/./"], ["//"]]
)
def test_deleted_files_that_lead_outside_are_refused(paths: Any, open_files: Open, refused: Refused) -> None:
    with refused("MetadataMalformed", "deleted.files"):
        read_checkpoint(open_files(crio() | {"deleted.files": json.dumps(paths).encode()}))


def test_no_deleted_files_is_null_in_go(open_files: Open) -> None:
    assert read_checkpoint(open_files(crio() | {"deleted.files": b"null"})).deleted_files == ()


def read(path: Path) -> Checkpoint:
    with open_checkpoint(path) as files:
        return read_checkpoint(files)


def test_real_checkpoints(sample: Path) -> None:
    found = read(sample)
    assert found.engine == "containerd"
    assert (found.container_name, found.pod_name, found.pod_namespace) == ("counter", "counter", "default")
    assert found.base.name == "localhost:5000/busybox:1"
    assert found.base.digest == "sha256:bc648e635346e404cda3aef1074580887a9f7b8057d49651bd349d0607fd7310"
    assert found.spec.args[:2] == ("sh", "-c")
    assert (found.log_member, found.rootfs_diff) == ("container.log", "rootfs-diff.tar")
    assert found.criu_version == ("4.2.1" if "containerd21" in sample.name else None)
    assert found.checkpointed_at is not None
    assert found.created_at is not None
    assert found.created_at < found.checkpointed_at
