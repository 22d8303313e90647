"""What is remembered of rights: for a while, for so many, and without saying what."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nri_plugin.restore.pull_records import KEPT_S, PullRecords

RIGHT = ("login", "sha256:" + "1" * 64, "default", "registry.example/team/app", "robot", "s3cret")


@pytest.fixture
def records(tmp_path: Path) -> PullRecords:
    return PullRecords(tmp_path / "pulls")


def only_record(records: PullRecords) -> Path:
    (path,) = (each for each in records.directory.iterdir() if each.name != "key")
    return path


def test_right_is_known_once_it_was_remembered_and_by_the_next_daemon_too(records: PullRecords) -> None:
    assert not records.knows(*RIGHT)
    records.remember(*RIGHT)
    assert records.knows(*RIGHT)
    assert PullRecords(records.directory).knows(*RIGHT)


@pytest.mark.parametrize("part", range(len(RIGHT)))
def test_right_that_differs_in_one_part_is_another(records: PullRecords, part: int) -> None:
    records.remember(*RIGHT)
    assert not records.knows(*(f"{each}x" if number == part else each for number, each in enumerate(RIGHT)))


def test_parts_cannot_be_shifted_into_each_other(records: PullRecords) -> None:
    records.remember("a", "b\0c")
    assert not records.knows("a\0b", "c")
    assert not records.knows("a", "b", "c")


@pytest.mark.parametrize(("age_s", "known"), [(KEPT_S - 60, True), (KEPT_S + 60, False), (-30, True), (-3600, False)])
def test_right_expires_and_one_of_the_future_is_none(records: PullRecords, age_s: float, known: bool) -> None:
    records.remember(*RIGHT)
    granted_at = time.time() - age_s
    os.utime(only_record(records), (granted_at, granted_at))
    assert records.knows(*RIGHT) is known


def test_expired_records_and_the_oldest_beyond_the_limit_are_deleted(tmp_path: Path) -> None:
    records = PullRecords(tmp_path / "pulls", limit=2)
    for number, age_s in enumerate((KEPT_S + 60, 300, 200, 100)):
        before = set(records.directory.glob("*"))
        records.remember(str(number))
        for path in set(records.directory.glob("*")) - before - {records.directory / "key"}:
            os.utime(path, (time.time() - age_s,) * 2)
    records.remember("newest")
    assert [name for name in ("0", "1", "2", "3", "newest") if records.knows(name)] == ["3", "newest"]
    assert len(list(records.directory.iterdir())) == 3, "with the key"


def test_nothing_on_disk_says_who_may_pull_what(records: PullRecords) -> None:
    records.remember(*RIGHT)
    written = b"".join(each.name.encode() + each.read_bytes() for each in records.directory.iterdir())
    assert not any(part.encode() in written for part in RIGHT)
    assert records.directory.stat().st_mode & 0o777 == 0o700
    assert {each.stat().st_mode & 0o777 for each in records.directory.iterdir()} == {0o600}


@pytest.mark.parametrize("key", [b"", b"short", None])
def test_without_its_key_the_records_are_worth_nothing(records: PullRecords, key: bytes | None) -> None:
    records.remember(*RIGHT)
    path = records.directory / "key"
    path.unlink() if key is None else path.write_bytes(key)
    again = PullRecords(records.directory)
    assert not again.knows(*RIGHT)
    again.remember(*RIGHT)
    assert PullRecords(records.directory).knows(*RIGHT)


def test_folder_that_cannot_be_written_keeps_no_restore_from_going_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "pulls").write_text("a file")
    records = PullRecords(tmp_path / "pulls")
    records.remember(*RIGHT)
    assert not records.knows(*RIGHT)
    assert "so the registry is asked again" in caplog.text


def test_folder_that_somebody_deleted_is_made_again(records: PullRecords) -> None:
    records.remember(*RIGHT)
    for path in records.directory.iterdir():
        path.unlink()
    records.directory.rmdir()
    assert not records.knows(*RIGHT)
    records.remember(*RIGHT)
    assert records.knows(*RIGHT)


def test_many_at_once_remember_the_same(tmp_path: Path) -> None:
    with ThreadPoolExecutor(16) as pool:
        records = PullRecords(tmp_path / "pulls")
        list(pool.map(lambda _: records.remember(*RIGHT), range(64)))
    assert records.knows(*RIGHT)
    assert len(list(records.directory.iterdir())) == 2
