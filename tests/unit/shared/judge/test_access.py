"""Mounts whose access the pod changes: what is put right, and what the kernel would not let us put right."""

from __future__ import annotations

import os
import stat
from dataclasses import replace
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.judge.access import access_changes, access_refusals
from shared.judge.corrections import corrections
from shared.spec import RuntimeSpec
from tests.support.checkpoints import SyntheticDump
from tests.support.pods import Security, read, spec, synthetic_dump


def changes(dumped: SyntheticDump, live: RuntimeSpec) -> set[tuple[str, str]]:
    return {(each.path, each.access) for each in access_changes(read(dumped), live)}


def with_option(live: RuntimeSpec, path: str, option: str) -> RuntimeSpec:
    mounts = (replace(each, options=("rbind", option)) if each.destination == path else each for each in live.mounts)
    return replace(live, mounts=tuple(mounts))


FOLLOWS = {"/", "/etc/hostname", "/etc/resolv.conf"}
"""The CRI mounts its own files read-only where the root is."""


def test_same_access_changes_nothing() -> None:
    for security in (Security(), Security(read_only_root=True, data_read_only=True)):
        assert changes(synthetic_dump(security), spec(security)) == set()


def test_root_becomes_what_the_pod_asks_for() -> None:
    strict, plain = Security(read_only_root=True), Security()
    assert changes(synthetic_dump(plain), spec(strict)) == {(path, "ro") for path in FOLLOWS}
    assert changes(synthetic_dump(strict), spec(plain)) == {(path, "rw") for path in FOLLOWS}


def test_volume_becomes_what_the_pod_asks_for() -> None:
    strict, plain = Security(data_read_only=True), Security()
    assert changes(synthetic_dump(plain), spec(strict)) == {("/data", "ro")}
    assert changes(synthetic_dump(strict), spec(plain)) == {("/data", "rw")}
    assert changes(synthetic_dump(plain), with_option(spec(plain), "/data", "rro")) == {("/data", "rro")}


def test_file_system_that_was_read_only_itself_says_nothing_about_the_pods() -> None:
    made = synthetic_dump(Security())
    made.mount("/data").sb_flags = 1
    assert changes(made, spec(Security(data_read_only=True))) == {("/data", "ro")}


def test_mounts_of_the_runtime_are_not_changed() -> None:
    made = synthetic_dump(Security())
    made.mount("/sys").flags = 0
    assert changes(made, spec(Security())) == set()


def test_mount_is_named_as_the_dump_has_it() -> None:
    """/var/run is a link, and no link is followed in the restored container."""
    made = synthetic_dump(Security())
    token = made.mount("/var/run/secrets/kubernetes.io/serviceaccount")
    token.mountpoint, token.flags = b"/run/secrets/kubernetes.io/serviceaccount", 0
    assert changes(made, spec(Security())) == {("/run/secrets/kubernetes.io/serviceaccount", "ro")}


def test_changes_are_among_the_corrections_also_with_the_right_to_raise_limits() -> None:
    for security in (Security(data_read_only=True), Security(data_read_only=True, add=("CAP_SYS_RESOURCE",))):
        dump = read(synthetic_dump(replace(security, data_read_only=False)))
        assert [each.path for each in corrections(dump, spec(security)).access] == ["/data"]


@pytest.mark.parametrize(
    ("fields", "refused"),
    [
        ({"flags": os.O_RDWR}, True),
        ({"flags": os.O_WRONLY | os.O_APPEND}, True),
        ({"flags": os.O_RDONLY}, False),
        ({"flags": os.O_RDWR | os.O_PATH}, False),
        ({"flags": os.O_RDWR, "mode": stat.S_IFIFO | 0o600}, False),
        ({"flags": os.O_RDWR, "mode": stat.S_IFCHR | 0o600}, False),
    ],
)
def test_file_that_is_open_for_writing_keeps_a_mount_writable(fields: dict[str, Any], refused: bool) -> None:
    """Pipes and devices are not written to on the mount."""
    made = synthetic_dump(Security())
    mount = made.mount("/data").mnt_id
    file = pb.RegFileEntry(id=77, name=b"/data/x", mnt_id=mount, **{"mode": stat.S_IFREG | 0o644, **fields})
    made.add_file(pb.FileEntry(type=1, id=77, reg=file), descriptor=9)
    found = [each.reason for each in access_refusals(read(made), spec(Security(data_read_only=True)))]
    assert found == (["WritableFileOpen"] if refused else [])
    assert not list(access_refusals(read(made), spec(Security(read_only_root=True))))
    assert not list(access_refusals(read(made), spec(Security())))
