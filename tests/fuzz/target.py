"""What a fuzz target is: a parser of foreign bytes, what it may raise, and sound inputs to start from."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from shared.errors import CheckpointInvalid, RestoreError

SENTENCE_CHARACTERS_MAX: Final = 2000
"""An error's sentence ends in an Event, which holds no more than a KiB or two."""


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    read: Callable[[bytes], object]
    seeds: Callable[[], Iterable[bytes]]
    raises: tuple[type[RestoreError], ...] = (CheckpointInvalid,)

    def hold(self, content: bytes) -> None:
        """Reads ``content``; raises whatever the parser's contract does not allow."""
        try:
            self.read(content)
        except self.raises as error:
            check_sentence(error)


def attempt(read: Callable[[], object], raises: tuple[type[RestoreError], ...]) -> None:
    """One of several readers of the same input: its refusal does not end the others'."""
    try:
        read()
    except raises as error:
        check_sentence(error)


def check_sentence(error: RestoreError) -> None:
    """A refusal is one printable line with a reason code, whatever the input was."""
    assert error.reason.isalpha(), error.reason
    assert error.reason.isascii(), error.reason
    assert str(error).isprintable(), ascii(str(error))
    assert len(str(error)) <= SENTENCE_CHARACTERS_MAX, len(str(error))
