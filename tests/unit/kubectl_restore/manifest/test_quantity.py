from __future__ import annotations

import pytest

from kubectl_restore.manifest.quantity import bytes_of, mebibytes


@pytest.mark.parametrize(
    ("quantity", "size"),
    [("5", 5), (5, 5), ("1Ki", 1024), ("1.5Gi", 3 << 29), ("2M", 2_000_000), ("1e3", 1000), ("5E", 5 * 10**18)],
)
def test_amounts(quantity: object, size: int) -> None:
    assert bytes_of(quantity) == size


@pytest.mark.parametrize("quantity", ["", "x", "1X", None, "1 Mi", "-1"])
def test_what_is_no_amount(quantity: object) -> None:
    assert bytes_of(quantity) is None


def test_mebibytes_are_rounded_up() -> None:
    assert [mebibytes(size) for size in (0, 1, 1 << 20, (1 << 20) + 1)] == ["1Mi", "1Mi", "1Mi", "2Mi"]
