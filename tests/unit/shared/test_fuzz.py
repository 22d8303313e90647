"""Whatever the bytes are, a reader understands them or raises CheckpointInvalid: nothing else, and it never hangs."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shared.archive import Compression, open_checkpoint
from shared.criu.dump import read_dump
from shared.criu.tmpfs import read_tmpfs
from shared.errors import CheckpointInvalid, Refused
from shared.judge import read
from shared.metadata import read_checkpoint
from shared.spec import parse_spec
from tests.support.checkpoints import SyntheticDump, compress, containerd, crio, podman, runtime_spec, tar_of
from tests.unit.shared.conftest import SAMPLES

BRIEF = settings(max_examples=150, deadline=2000, database=None, suppress_health_check=list(HealthCheck))
Change = tuple[int, bytes]
CHANGES = st.lists(st.tuples(st.integers(0, 1 << 20), st.binary(min_size=1, max_size=8)), min_size=1, max_size=6)


def read_everything(content: bytes) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "checkpoint.tar"
        path.write_bytes(content)
        try:
            with open_checkpoint(path) as files:
                for reader in (read_checkpoint, read_dump, read):
                    try:
                        found = reader(files)
                        if reader is read_dump:
                            read_tmpfs(files, found.mounts)
                    except (CheckpointInvalid, Refused) as error:
                        assert_readable(error)
        except CheckpointInvalid as error:
            assert_readable(error)


def assert_readable(error: CheckpointInvalid) -> None:
    assert error.reason.isalpha()
    assert str(error).isprintable()
    assert len(str(error)) < 1000


def spoil(content: bytes, changes: list[Change]) -> bytes:
    spoiled = bytearray(content)
    for where, piece in changes:
        at = where % max(1, len(spoiled))
        spoiled[at : at + len(piece)] = piece
    return bytes(spoiled)


@BRIEF
@given(st.binary(max_size=4096))
def test_random_bytes(content: bytes) -> None:
    for start in (b"", b"\x1f\x8b\x08", b"\x28\xb5\x2f\xfd"):
        read_everything(start + content)


@BRIEF
@given(st.sampled_from([containerd, crio, podman]), st.sampled_from(Compression), CHANGES)
def test_spoiled_archives(engine: Any, compression: Compression, changes: list[Change]) -> None:
    read_everything(spoil(compress(tar_of(engine()), compression), changes))


@BRIEF
@given(st.data())
def test_spoiled_files_in_a_sound_archive(data: st.DataObject) -> None:
    files = containerd(SyntheticDump.of_processes(2))
    for name in data.draw(st.lists(st.sampled_from(sorted(files)), min_size=1, max_size=3)):
        match data.draw(st.sampled_from(["spoil", "cut", "replace", "drop"])):
            case "spoil":
                files[name] = spoil(files.get(name, b""), data.draw(CHANGES))
            case "cut":
                files[name] = files.get(name, b"")[: data.draw(st.integers(0, 600))]
            case "replace":
                files[name] = data.draw(st.binary(max_size=300))
            case "drop":
                files.pop(name, None)
    read_everything(tar_of(files))


@BRIEF
@given(st.sampled_from(["counter-containerd21.tar", "counter-kubelet136.tar", None]), CHANGES)
def test_spoiled_real_checkpoints(name: str | None, changes: list[Change]) -> None:
    path = SAMPLES / name if name else None
    content = path.read_bytes() if path and path.is_file() else tar_of(podman())
    read_everything(spoil(content, changes))


@BRIEF
@given(st.sampled_from(sorted(SyntheticDump.of_processes().images)), st.binary(max_size=200))
def test_random_messages_behind_the_right_magic(name: str, message: bytes) -> None:
    files = SyntheticDump.of_processes().files()
    name = f"checkpoint/{name}"
    start = files[name][: 4 if name.endswith("inventory.img") else 8]
    files[name] = start + len(message).to_bytes(4, "little") + message
    read_everything(tar_of(files))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=8,
)


@BRIEF
@given(st.data())
def test_random_values_in_a_runtime_spec(data: st.DataObject) -> None:
    spec = runtime_spec()
    target: Any = spec
    while isinstance(target, dict) and target:
        key = data.draw(st.sampled_from(sorted(target)))
        if data.draw(st.booleans()) or not isinstance(target[key], dict):
            target[key] = data.draw(JSON)
            break
        target = target[key]
    try:
        parse_spec(json.dumps(spec).encode(), file="spec.dump")
    except CheckpointInvalid as error:
        assert_readable(error)


@BRIEF
@given(st.binary(max_size=200))
def test_random_bytes_as_a_runtime_spec(document: bytes) -> None:
    try:
        parse_spec(document, file="spec.dump")
    except CheckpointInvalid as error:
        assert_readable(error)
