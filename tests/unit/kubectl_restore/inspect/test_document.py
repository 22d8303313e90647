from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any, get_args, get_type_hints

import yaml

from kubectl_restore.inspect import facts
from kubectl_restore.inspect.document import as_json, as_yaml, document_of
from tests.support.checkpoints import containerd
from tests.support.inspected import rich_dump
from tests.unit.kubectl_restore.inspect.conftest import Gather

PAGE = Path(__file__).resolve().parents[4] / "docs" / "inspect.md"


def test_json_and_yaml_say_the_same(inspected: Gather) -> None:
    document = document_of(inspected(containerd(rich_dump())), facts.KIND)
    assert yaml.safe_load(as_yaml(document)) == json.loads(as_json(document))


def test_document_says_what_it_is(inspected: Gather) -> None:
    document = document_of(inspected(containerd()), facts.KIND)
    assert list(document)[:2] == ["apiVersion", "kind"]
    assert (document["apiVersion"], document["kind"]) == ("nri-restore/v1", "CheckpointInspection")


def test_names_are_camel_case_and_moments_utc(inspected: Gather) -> None:
    document = document_of(inspected(containerd()), facts.KIND)
    assert document["container"]["checkpointedAt"] == "2026-11-24T03:24:13.861955Z"
    assert document["processes"][0]["memory"]["dumpedBytes"] == 8192


def test_odd_texts_stay_whole_in_json_and_yaml(inspected: Gather) -> None:
    document = document_of(inspected(rich_dump([b"a\x1b[31m\0\xe2\x80\xae: #\0"])), facts.KIND)
    wanted = ["a\x1b[31m", "\u202e: #"]
    assert json.loads(as_json(document))["processes"][0]["command"] == wanted
    text = as_yaml(document)
    assert yaml.safe_load(text)["processes"][0]["command"] == wanted
    assert text.isascii()


def names_of(kind: type[Any]) -> set[str]:
    """Every field's name in the document, of all that it contains."""
    found: set[str] = set()
    for name, hint in get_type_hints(kind).items():
        first, *rest = name.split("_")
        found.add(first + "".join(word.capitalize() for word in rest))
        for inner in (hint, *get_args(hint)):
            if dataclasses.is_dataclass(inner) and isinstance(inner, type):
                found |= names_of(inner)
    return found


def test_page_names_every_field_and_no_other() -> None:
    table = PAGE.read_text().partition("<!-- schema")[2].partition("<!-- /schema -->")[0]
    words = set(re.findall(r"`([A-Za-z]+)`", table))
    assert words == names_of(facts.Inspection)


def test_page_names_every_kind_of_loss() -> None:
    page = PAGE.read_text()
    assert [code for code in get_args(facts.LossCode) if f"`{code}`" not in page] == []
