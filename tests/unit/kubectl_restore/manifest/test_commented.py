from __future__ import annotations

from typing import Any

import pytest
import yaml

from kubectl_restore.manifest.commented import Comments, as_yaml

TEXTS = [
    "yes",
    "y",
    "1e3",
    "0x1",
    "a: b",
    "# no",
    "",
    " ",
    "a\nb",
    "\x1b[1m",
    "é",
    "null",
    "-",
    "a:b/c@sha256:1",
    "~",
    "1.5",
]


@pytest.mark.parametrize("text", TEXTS)
def test_texts_stay_texts(text: str) -> None:
    document: dict[str, Any] = {"a": text, "b": [text, {"c": text}], "d": {text or "k": text}}
    assert yaml.safe_load(as_yaml(document, Comments())) == document


def test_comments_stand_above_what_they_are_about() -> None:
    document: dict[str, Any] = {"a": {"b": 1}, "c": [{"d": 2}], "e": {}, "f": []}
    comments = Comments()
    comments.add(document["a"], "b", "why b")
    comments.add(document["c"][0], "", "about the item")
    comments.add(document, "e", "two\nlines: x")
    text = as_yaml(document, comments)
    assert text == ("a:\n  # why b\n  b: 1\nc:\n# about the item\n- d: 2\n# two\\nlines: x\ne: {}\nf: []\n")
    assert yaml.safe_load(text) == document
    assert comments.listed(document) == [("a.b", "why b"), ("c[0]", "about the item"), ("e", "two\nlines: x")]
