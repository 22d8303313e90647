"""Which paths on volumes are looked at before CRIU makes or watches something there as root."""

from __future__ import annotations

from typing import Any

import pytest

from shared.judge.volume_files import Deed, volume_files
from tests.support.checkpoints import SyntheticDump
from tests.support.open_files import DELETED, FIFO, with_every_kind
from tests.support.pods import Security, read, spec

USER = Security(uid=1000, gid=1000, groups=(2000,), drop=("ALL",), no_new_privileges=True, tty=True)


def with_deleted_on_a_volume(pod: Security) -> SyntheticDump:
    made = with_every_kind(pod)
    file: Any = next(each for each in made.images["files.img"] if each.id == DELETED)  # type: ignore[attr-defined]
    file.reg.name, file.reg.mnt_id = b"/data/gone", made.mount("/data").mnt_id
    return made


def test_user_must_be_able_to_do_what_criu_does() -> None:
    found = volume_files(read(with_deleted_on_a_volume(USER)), spec(USER))
    assert {(each.deed, each.path, each.volume, each.source) for each in found} == {
        (Deed.MAKE, "/data/gone", "/data", "/node/data"),
        (Deed.WATCH, "/data/conf", "/data", "/node/data"),
    }
    assert {(user.uid, user.gid, user.groups) for user in found[0].users} == {(1000, 1000, (1000, 2000))}


@pytest.mark.parametrize(
    ("pod", "left"),
    [
        (Security(tty=True), set()),  # root, who may do everything to files
        (Security(tty=True, add=("CAP_SYS_ADMIN",)), set()),
        (Security(tty=True, drop=("CAP_DAC_OVERRIDE",)), {Deed.MAKE, Deed.WATCH}),
        (Security(tty=True, drop=("CAP_DAC_OVERRIDE",), add=("CAP_DAC_READ_SEARCH",)), {Deed.MAKE}),
    ],
)
def test_who_may_do_it_anyway_is_not_asked(pod: Security, left: set[Deed]) -> None:
    found = volume_files(read(with_deleted_on_a_volume(pod)), spec(pod))
    assert {each.deed for each in found} == left


def test_files_of_the_root_are_not_looked_at() -> None:
    found = volume_files(read(with_every_kind(USER)), spec(USER))
    assert [each.path for each in found] == ["/data/conf"]


def test_user_must_be_able_to_write_what_criu_writes_into_a_fifo() -> None:
    made = with_every_kind(USER)
    file: Any = next(each for each in made.images["files.img"] if each.id == FIFO + 1)  # type: ignore[attr-defined]
    file.reg.name, file.reg.mnt_id = b"/data/fifo", made.mount("/data").mnt_id
    assert (Deed.FILL, "/data/fifo") in {(each.deed, each.path) for each in volume_files(read(made), spec(USER))}
