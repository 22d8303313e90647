"""One change to one place of a dump."""

from __future__ import annotations

from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.criu.decode import decode
from shared.errors import CheckpointInvalid
from tests.hostile.generator.edits import Edit, NotPossible, apply, from_json, serialized, to_json
from tests.hostile.generator.layout import parse
from tests.hostile.generator.sample import FOLDER, Sample

COMM = (("tc", None), ("comm", None))


def changed(sample: Sample, *edits: Edit) -> list[Any]:
    """The parts of the only image that the edits change."""
    ((name, content),) = apply(sample, edits).files.items()
    assert content is not None
    return parse(name.removeprefix(FOLDER), content)


def test_value_is_set_and_named(sample: Sample) -> None:
    edit = Edit("core-1.img", 0, COMM, "set", b"other")
    assert changed(sample, edit)[0].tc.comm == b"other"
    assert apply(sample, [edit]).touched == {("TaskCoreEntry", "comm")}
    assert parse("core-1.img", sample.files[FOLDER + "core-1.img"])[0].tc.comm != b"other"  # type: ignore[union-attr]


def test_required_field_is_absent(sample: Sample) -> None:
    (core,) = changed(sample, Edit("core-1.img", 0, COMM, "clear"))
    assert not core.tc.HasField("comm")


def test_message_that_is_absent_is_made_on_the_way(sample: Sample) -> None:
    edit = Edit("core-1.img", 0, (("ti_mips", None), ("gpregs", None), ("r3", None)), "set", 5)
    (core,) = changed(sample, edit)
    assert core.ti_mips.gpregs.r3 == 5
    assert core.IsInitialized()
    assert ("CoreEntry", "ti_mips") in apply(sample, [edit]).touched


def test_elements_are_added_dropped_and_swapped(sample: Sample) -> None:
    def values(edit: Edit) -> list[int]:
        return [each.cur for each in changed(sample, *two, edit)[0].tc.rlimits.rlimits]

    path = ("tc", None), ("rlimits", None), ("rlimits", None)
    first = (*path[:-1], ("rlimits", 0))
    new = [pb.RlimitEntry(cur=number, max=9).SerializeToString() for number in (1, 2, 3)]
    two = [Edit("core-1.img", 0, path[:-1], "clear")]
    two += [Edit("core-1.img", 0, path, "append message", each) for each in new[:2]]
    assert values(Edit("core-1.img", 0, path, "append message", new[2])) == [1, 2, 3]
    assert values(Edit("core-1.img", 0, first, "drop")) == [2]
    assert values(Edit("core-1.img", 0, first, "swap")) == [2, 1]


@pytest.mark.parametrize("path", [(), (("tc", None),), (("thread_core", None), ("creds", None))])
def test_field_twice_is_another_spelling_of_the_message(sample: Sample, path: tuple[tuple[str, None], ...]) -> None:
    """The bytes decode to something, and the reader that takes one spelling refuses them."""
    inner: Any = parse("core-1.img", sample.files[FOLDER + "core-1.img"])[0]
    for name, _ in path:
        inner = getattr(inner, name)
    field = inner.DESCRIPTOR.fields[0]
    twice = serialized(type(inner), field, getattr(inner, field.name))
    content = apply(sample, [Edit("core-1.img", 0, path, "suffix", twice)]).files[FOLDER + "core-1.img"]
    assert content is not None
    assert pb.CoreEntry.FromString(content[12:]).IsInitialized()
    with pytest.raises(CheckpointInvalid, match="a field twice"):
        decode(pb.CoreEntry, content[12:], "core-1.img")


def test_message_is_put_before_another_and_taken_away(sample: Sample) -> None:
    new = pb.PstreeEntry(pid=9, ppid=0, pgid=9, sid=9).SerializeToString()
    assert [each.pid for each in changed(sample, Edit("pstree.img", 0, (), "insert", new))] == [9, 1, 2]
    assert [each.pid for each in changed(sample, Edit("pstree.img", 0, (), "remove"))] == [2]
    assert [each.pid for each in changed(sample, Edit("pstree.img", 0, (), "exchange"))] == [2, 1]


def test_bytes_are_put_behind_and_files_replaced(sample: Sample) -> None:
    behind = apply(sample, [Edit("pstree.img", -1, (), "tail", b"x")]).files[FOLDER + "pstree.img"]
    assert behind == sample.files[FOLDER + "pstree.img"] + b"x"
    assert apply(sample, [Edit("pstree.img", -1, (), "file", None)]).files == {FOLDER + "pstree.img": None}


def test_edits_of_one_image_are_made_together(sample: Sample) -> None:
    edits = [Edit("pstree.img", 1, (), "remove"), Edit("pstree.img", 0, (("sid", None),), "set", 7)]
    assert [(each.pid, each.sid) for each in changed(sample, *edits)] == [(1, 7)]


def test_edits_that_take_each_other_away_are_not_possible(sample: Sample) -> None:
    gone = Edit("pstree.img", -1, (), "file", None)
    with pytest.raises(NotPossible):
        apply(sample, [gone, Edit("pstree.img", 0, (("sid", None),), "set", 7)])
    with pytest.raises(NotPossible):
        apply(sample, [Edit("pstree.img", 99, (), "remove")])


def test_edit_is_printed_and_read_again() -> None:
    edits = [Edit("core-1.img", 0, COMM, "set", b"\0x"), Edit("a.img", -1, (), "file", None)]
    assert from_json(to_json(edits)) == edits
    assert str(edits[0]) == "core-1.img[0].tc.comm set b'\\x00x'"
