"""The metrics' text, as Prometheus's own parser reads it."""

from __future__ import annotations

from collections.abc import Mapping

from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from nri_plugin.metrics import Metrics


def samples(metrics: Metrics, session: Mapping[str, int] | None = None, *, connected: bool = True) -> list[Sample]:
    text = metrics.render(session or {}, connected=connected)
    return [each for family in text_string_to_metric_families(text) for each in family.samples]


def value(found: list[Sample], name: str, **labels: str) -> float:
    (only,) = (each.value for each in found if each.name == f"nri_restore_{name}" and each.labels == labels)
    return float(only)


def test_restores_are_counted_by_result_and_reason() -> None:
    metrics = Metrics("1.2")
    metrics.told("restored", "", {})
    metrics.told("restored", "", {})
    metrics.told("refused", "MountMissing", {})
    found = samples(metrics)
    assert value(found, "restores_total", result="restored", reason="") == 2
    assert value(found, "restores_total", result="refused", reason="MountMissing") == 1


def test_phases_are_cumulative_histograms() -> None:
    metrics = Metrics("1.2")
    for seconds in (0.001, 0.002, 4, 1000):
        metrics.told("restored", "", {"view": seconds})
    found = samples(metrics)
    counts = {
        limit: value(found, "phase_duration_seconds_bucket", phase="view", le=limit)
        for limit in ("0.001", "0.0025", "2.5", "5", "300", "+Inf")
    }
    assert counts == {"0.001": 1, "0.0025": 2, "2.5": 2, "5": 3, "300": 3, "+Inf": 4}
    assert value(found, "phase_duration_seconds_count", phase="view") == 4
    assert value(found, "phase_duration_seconds_sum", phase="view") == 1004.003


def test_large_counts_are_exact() -> None:
    found = samples(Metrics("1.2", cleaned=123456789))
    assert value(found, "orphans_cleaned_total") == 123456789


def test_plans_connection_and_worker_are_told() -> None:
    metrics = Metrics("1.2", plans={"ready": 3, "restored": 4}, oldest_s=7.5, cleaned=2, worker_starts=1)
    found = samples(metrics, {"connects": 5, "owned": 7, "ordinary": 100, "late": 1}, connected=False)
    assert value(found, "plans", state="ready") == 3
    assert value(found, "oldest_unfinished_seconds") == 7.5
    assert value(found, "orphans_cleaned_total") == 2
    assert value(found, "worker_starts_total") == 1
    assert value(found, "nri_connected") == 0
    assert value(found, "nri_connections_total") == 5
    assert value(found, "containers_total", kind="ours") == 7
    assert value(found, "nri_problems_total", kind="late") == 1


def test_label_values_may_hold_anything() -> None:
    version = 'a "quoted" \\ value\nof two lines'
    (info,) = [each for each in samples(Metrics(version)) if each.name == "nri_restore_build_info"]
    assert info.labels["version"] == version
