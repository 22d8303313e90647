from __future__ import annotations

import pytest

from kubectl_restore.kube.duration import seconds


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("0", 0.0),
        ("30", 30.0),
        ("1.5s", 1.5),
        ("250ms", 0.25),
        ("1m30s", 90.0),
        ("2h", 7200.0),
        ("", None),
        ("-3s", None),
        ("3 s", None),
        ("soon", None),
        ("5m tomorrow", None),
    ],
)
def test_durations(text: str, expected: float | None) -> None:
    assert seconds(text) == expected
