from __future__ import annotations

from pathlib import Path

from kubectl_restore.status import reasons

DOCUMENTATION = Path(__file__).resolve().parents[4] / reasons.DOCUMENTATION
_ON_ITS_OWN = ("the next attempt", "the kubelet tries again")


def test_what_to_do_is_what_the_documentation_says() -> None:
    rows = [line for line in DOCUMENTATION.read_text().splitlines() if line.startswith("| `TtyDiffers` |")]
    found = reasons.reason("TtyDiffers")
    assert found and rows == [f"| `TtyDiffers` | {found.meaning} | {found.remedy} |"]
    assert reasons.reason("NoSuchCode") is None


def test_passing_are_those_after_which_nobody_has_to_do_anything() -> None:
    codes = [line.split("`")[1] for line in DOCUMENTATION.read_text().splitlines() if line.startswith("| `")]
    remedies = {code: found.remedy for code in codes if (found := reasons.reason(code))}
    waiting = {code for code, remedy in remedies.items() if any(words in remedy for words in _ON_ITS_OWN)}
    assert waiting == reasons.PASSING
