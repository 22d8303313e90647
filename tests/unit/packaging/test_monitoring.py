"""Dashboard and alert rules ask for metrics the daemon has, with labels and values it gives."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from nri_plugin.metrics import Metrics
from nri_plugin.restore.outcome import Result, State

FOLDER = Path(__file__).resolve().parents[3] / "packaging/monitoring"
OPERATE = FOLDER.parents[1] / "docs/operate.md"
SELECTED = re.compile(r"(nri_restore_[a-z_]+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r"(\w+)\s*(=~|!=|=)\s*\"([^\"]*)\"")
FREE = {"reason", "instance", "version", "python", "le"}
"""Labels whose values are not the daemon's own few words."""


def rules() -> Iterator[str]:
    for group in yaml.safe_load((FOLDER / "rules.yml").read_text())["groups"]:
        for rule in group["rules"]:
            yield rule["expr"]


def strings(value: Any, *keys: str) -> Iterator[str]:
    """Every text below one of ``keys``, at any depth."""
    if isinstance(value, list):
        for each in value:
            yield from strings(each, *keys)
    elif isinstance(value, dict):
        for key, each in value.items():
            if key in keys and isinstance(each, str):
                yield each
            yield from strings(each, *keys)


def dashboard() -> Iterator[str]:
    yield from strings(json.loads((FOLDER / "dashboard.json").read_text()), "expr", "definition")


@pytest.fixture(scope="module")
def known() -> dict[str, dict[str, set[str]]]:
    """Label values by label, by name of what can be selected: of a daemon to which everything has happened once."""
    metrics = Metrics("1", plans=dict.fromkeys(get_args(State), 1))
    for result in get_args(Result):
        metrics.told(result, "TtyDiffers", {"restore": 1.0, "view": 0.1})
    found: dict[str, dict[str, set[str]]] = {}
    for family in text_string_to_metric_families(metrics.render({}, connected=True)):
        for sample in family.samples:
            labels = found.setdefault(sample.name, {})
            for label, value in sample.labels.items():
                labels.setdefault(label, set()).add(value)
    return found


@pytest.mark.parametrize("expression", [*rules(), *dashboard()])
def test_what_is_asked_for_is_there(known: dict[str, dict[str, set[str]]], expression: str) -> None:
    selected = SELECTED.findall(expression)
    assert selected
    for name, matchers in selected:
        assert name in known
        for label, _, wanted in MATCHER.findall(matchers):
            assert label in known[name] or label == "instance"
            if label not in FREE:
                assert set(wanted.split("|")) <= known[name][label]


def test_every_metric_is_on_the_dashboard(known: dict[str, dict[str, set[str]]]) -> None:
    shown = {name for expression in dashboard() for name, _ in SELECTED.findall(expression)}
    assert known.keys() <= shown


def test_every_metric_is_explained_with_its_labels(known: dict[str, dict[str, set[str]]]) -> None:
    rows = re.findall(r"^\| `(nri_restore_\w+)` \|([^|]*)\|", OPERATE.read_text(), re.MULTILINE)
    explained = {name: set(re.findall(r"`(\w+)`", labels)) for name, labels in rows}
    families = {re.sub(r"_(bucket|sum|count)$", "", name): set(labels) - {"le"} for name, labels in known.items()}
    assert explained == families


def test_panels_do_not_overlap() -> None:
    taken: set[tuple[int, int]] = set()
    for panel in json.loads((FOLDER / "dashboard.json").read_text())["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken
        assert place["x"] + place["w"] <= 24
        taken |= cells
