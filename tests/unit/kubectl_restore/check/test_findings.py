from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from kubectl_restore.check.findings import CODES, finding, report_of
from shared.preflight.findings import Finding, Level, listed

ROOT = Path(__file__).resolve().parents[4]
PAGE = ROOT / "docs" / "check.md"


def test_worst_finding_decides() -> None:
    levels = {
        "would restore": [Level.ok, Level.note],
        "could not tell": [Level.ok, Level.note, Level.unknown],
        "would fail": [Level.ok, Level.unknown, Level.fails],
    }
    for verdict, each in levels.items():
        report = report_of("x", "y", [Finding("Code", level, "machine", "") for level in each])
        assert report.verdict == verdict
    assert report_of("x", "y", []).verdict == "would restore"


@pytest.mark.parametrize(("level", "status"), [(Level.note, 0), (Level.fails, 1), (Level.unknown, 2)])
def test_exit_status(level: Level, status: int) -> None:
    assert report_of("x", "y", [Finding("Code", level, "machine", "")]).exit_code == status


def test_what_matters_comes_first() -> None:
    found = report_of("x", "y", [finding("PodFits", "pod", ""), finding("CriuTooOld", "machine", "")])
    assert [each.code for each in found.findings] == ["CriuTooOld", "PodFits"]


def test_long_lists_are_cut() -> None:
    assert listed(["a", "b"]) == "a, b"
    assert listed(list("abcdefgh"), 3) == "a, b, c and 5 more"


def refusals() -> set[str]:
    """Every code that a rule of the node's can refuse with; what links.py refuses takes the node's kernel."""
    found = set()
    for path in (each for each in (ROOT / "shared" / "judge").glob("*.py") if each.name != "links.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused":
                assert isinstance(node.args[0], ast.Constant), f"{path}:{node.lineno} has a code that is no literal"
                found.add(node.args[0].value)
    return found


def entries() -> dict[str, str]:
    return dict(re.findall(r"^\| `([A-Za-z]+)` \| (\w+) \|", PAGE.read_text(), re.MULTILINE))


def test_page_has_every_code_and_no_other() -> None:
    assert set(entries()) == set(CODES) | refusals()


def test_page_has_the_right_levels() -> None:
    wanted = dict.fromkeys(refusals(), "fails") | {code: level.value for code, level in CODES.items()}
    assert entries() == wanted


def test_rules_are_found_at_all() -> None:
    assert {"MountMissing", "UserDiffers", "CapabilitiesExceed"} <= refusals()


def test_every_code_can_be_found() -> None:
    """A code that no line of ours makes is one that the page explains for nothing."""
    folders = ROOT / "kubectl_restore" / "check", ROOT / "shared" / "preflight"
    source = "".join(path.read_text() for folder in folders for path in folder.glob("*.py"))
    made = set(re.findall(r'finding\(\s*"([A-Za-z]+)"', source)) | set(re.findall(r'return "([A-Za-z]+)", f', source))
    assert made == set(CODES)
