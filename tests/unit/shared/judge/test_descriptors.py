"""descriptors.json: three names, and nothing else of the file."""

from __future__ import annotations

import json

import pytest

from shared.criu.images import ImageDirectory
from shared.errors import CheckpointInvalid
from shared.judge.descriptors import descriptors_file
from tests.support.pods import InMemory

ORDINARY = ["/dev/null", "pipe:[31]", "pipe:[41]"]


def written(content: bytes) -> bytes:
    (piece,) = descriptors_file(ImageDirectory(InMemory({"checkpoint/descriptors.json": content}), "checkpoint")).pieces
    assert isinstance(piece, bytes)
    return piece


@pytest.mark.parametrize(
    "names",
    [ORDINARY, ["/dev/pts/0"] * 3, ["socket:[7]", "/var/log/app", "/dev/console"], ["", "", ""]],
    ids=["pipes", "terminal", "others", "closed"],
)
def test_names_of_ordinary_containers_stay(names: list[str]) -> None:
    assert json.loads(written(json.dumps(names).encode())) == names


def test_spaces_and_more_names_are_left_out() -> None:
    spread = json.dumps([*ORDINARY, "pipe:[51]"], indent=4).encode()
    assert written(spread) == written(json.dumps(ORDINARY).encode()) == b'["/dev/null","pipe:[31]","pipe:[41]"]'


@pytest.mark.parametrize("name", ["pipe:[]", "pipe:[1]x", "pipe:[-1]", "x", "tty[1:2]:3", "../x", "/a\0b", "fd[0]"])
def test_name_that_no_descriptor_has_is_refused(name: str) -> None:
    with pytest.raises(CheckpointInvalid) as failure:
        written(json.dumps([name, *ORDINARY[1:]]).encode())
    assert failure.value.reason in ("DescriptorsInvalid", "MetadataMalformed")


@pytest.mark.parametrize("content", [b"[]", b'["a","b"]', b"{}", b"[1,2,3]", b"x"])
def test_other_content_is_refused(content: bytes) -> None:
    with pytest.raises(CheckpointInvalid) as failure:
        written(content)
    assert failure.value.reason in ("DescriptorsInvalid", "MetadataMalformed")
