"""docs/reasons.md names every reason code there is, and none that there is not."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from nri_plugin.restore.preflight import REASONS
from shared.preflight.findings import CODES, Level
from tests.support.reason_codes import CODE, python_codes, shell_codes

ROOT = Path(__file__).resolve().parents[2]
ROW = re.compile(r"\| `([^`]+)` \| ([^|]+) \| ([^|]+) \|")


@pytest.fixture(scope="module")
def codes() -> dict[str, str]:
    python = [
        file
        for folder in ("shared", "nri_plugin", "kubectl_restore")
        for file in sorted((ROOT / folder).rglob("*.py"))
        if not file.name.endswith("_pb2.py")
    ]
    shell = [file for file in sorted((ROOT / "nri_plugin/runtime").iterdir()) if file.is_file()]
    preflight = {REASONS.get(code, code): "shared/preflight" for code, level in CODES.items() if level is Level.fails}
    return {**preflight, **python_codes(python), **shell_codes(shell)}


@pytest.fixture(scope="module")
def rows() -> list[tuple[str, str, str]]:
    lines = (ROOT / "docs/reasons.md").read_text().splitlines()
    return [(found[1], found[2], found[3]) for line in lines if (found := ROW.fullmatch(line))]


def test_every_code_of_the_product_is_explained(codes: dict[str, str], rows: list[tuple[str, str, str]]) -> None:
    explained = {code for code, _, _ in rows}
    missing = {code: place for code, place in codes.items() if code not in explained}
    assert not missing, f"add to docs/reasons.md: {missing}"


def test_no_code_is_explained_that_nothing_gives(codes: dict[str, str], rows: list[tuple[str, str, str]]) -> None:
    assert not [code for code, _, _ in rows if code not in codes]


def test_codes_are_explained_once_in_order(rows: list[tuple[str, str, str]]) -> None:
    assert not [code for code, count in Counter(code for code, _, _ in rows).items() if count > 1]
    text = (ROOT / "docs/reasons.md").read_text()
    for table in re.split(r"^## .*$", text, flags=re.MULTILINE)[1:]:
        listed = [found.group(1) for line in table.splitlines() if (found := ROW.fullmatch(line))]
        assert listed == sorted(listed)
        assert len(listed) == table.count("\n| `"), "a row is not of the form | `Code` | meaning | what to do |"


def test_the_search_finds_each_way_to_give_a_code(tmp_path: Path) -> None:
    source = tmp_path / "module.py"
    source.write_text(
        "_LATER = 'AsAConstant'\n"
        "class Own(Refused):\n"
        "    def __init__(self, text, *, reason='AsADefault'):\n"
        "        super().__init__('AsTheFirstOfSuper', text)\n"
        "class Known:\n"
        "    pattern: str\n"
        "    reason: str\n"
        "class Refused(RestoreError): ...\n"
        "raise Refused('AsTheFirst', 'NotThis')\n"
        "raise errors.Own('a sentence', reason='AsAKeyword')\n"
        "Known('NotThis', 'AsAField')\n"
        "Known('NotThis', reason='AsAFieldByName')\n"
        "raise Refused('IfSo' if so else 'Otherwise', 'NotThis')\n"
        "raise Refused(_LATER, 'NotThis')\n"
        "read(limit=1, too_large='AsTooLarge')\n"
        "raise ValueError('NotThis')\n"
    )
    found = set(python_codes([source]))
    assert found == {
        "AsAConstant",
        "AsADefault",
        "AsTheFirstOfSuper",
        "AsTheFirst",
        "AsAKeyword",
        "AsAField",
        "AsAFieldByName",
        "IfSo",
        "Otherwise",
        "AsTooLarge",
    }
    script = tmp_path / "script.sh"
    script.write_text('fail "NotPrepared: x"\nprintf \'CriuFailed: %s\' "$1"\nfail "$why"\nprintf "error: no code"\n')
    assert set(shell_codes([script])) == {"NotPrepared", "CriuFailed"}
    assert not CODE.fullmatch("a sentence") and not CODE.fullmatch("lower")
