from __future__ import annotations

import pytest

from shared.errors import CheckpointInvalid
from shared.printable import LIMIT, safe

OBEYED = {
    "\x1b[2J": r"\x1b[2J",
    "a\r\nb": r"a\r\nb",
    "\x9b31m": r"\x9b31m",
    "\x7f": r"\x7f",
    "\u202egnp.exe": r"\u202egnp.exe",
    "\u200b": r"\u200b",
    "\udcff": r"\udcff",
    "\U000e0041": r"\U000e0041",
}


@pytest.mark.parametrize("text", OBEYED)
def test_what_a_terminal_or_a_reader_would_obey_is_shown_as_an_escape(text: str) -> None:
    assert safe(text) == OBEYED[text]


def test_printable_text_stays_as_it_is() -> None:
    assert safe("/srv/Grüße/日本 …") == "/srv/Grüße/日本 …"


@pytest.mark.parametrize("text", ["a" * (LIMIT + 1), "\x1b" * LIMIT])
def test_length_is_bounded_also_of_escapes(text: str) -> None:
    assert len(safe(text)) == LIMIT
    assert safe(text).endswith("…")


def test_sentence_of_every_error_is_safe() -> None:
    error = CheckpointInvalid("MemberName", "a\n\x1b[2J" + "b" * 10_000)
    assert error.sentence == str(error)
    assert error.sentence.isprintable()
    assert len(error.sentence) == LIMIT
