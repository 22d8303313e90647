"""Images that no dump of a pod's container has."""

from __future__ import annotations

import pytest

from shared.criu import criu_pb2 as pb
from shared.judge import images
from shared.judge.images import image_refusals
from tests.support.pods import Security, read, synthetic_dump


def test_every_field_of_what_is_not_written_has_a_rule() -> None:
    for name, rules in images.FIELDS.items():
        assert set(rules) == {each.name for each in getattr(pb, name).DESCRIPTOR.fields}, name


@pytest.mark.parametrize(
    "name", ["below/core-1.img", "below/pages-1.img", "stats-dump/x", "iptables-9.img", "core-1.img.img", "core--1.img"]
)
def test_image_of_an_unknown_name_is_refused(name: str) -> None:
    made = synthetic_dump(Security())
    made.raw[name] = b""
    (found,) = image_refusals(read(made))
    assert found.reason == "ImageForeign" and name in found.sentence


def test_ordinary_images_are_not_refused() -> None:
    assert list(image_refusals(read(synthetic_dump(Security())))) == []
