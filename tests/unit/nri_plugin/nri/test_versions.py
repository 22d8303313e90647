from __future__ import annotations

import pytest

from nri_plugin.nri.nri_pb2 import (
    ContainerAdjustment,
    Event,
    KeyValue,
    LinuxContainerAdjustment,
    LinuxNamespace,
    Mount,
    OptionalInt,
)
from nri_plugin.nri.protocol import SUBSCRIBED
from nri_plugin.nri.versions import OLDEST, Version, event_mask, ignored_fields, nri_version, valid_mask


@pytest.mark.parametrize(
    ("name", "version", "nri"),
    [
        ("containerd", "1.7.24~ds1", (0, 6, 1)),
        ("containerd", "v1.7.25", (0, 6, 1)),
        ("containerd", "v1.7.26", (0, 8, 0)),
        ("containerd", "v1.7.0", (0, 3, 0)),
        ("containerd", "v1.7.13", (0, 4, 0)),
        ("containerd", "v1.7.14", (0, 6, 0)),
        ("containerd", "v1.7.99", (0, 8, 0)),
        ("containerd", "v2.0.5", (0, 8, 0)),
        ("containerd", "2.1.9~ds1", (0, 8, 0)),
        ("containerd", "v2.2.0", (0, 10, 0)),
        ("containerd", "v2.2.1", (0, 11, 0)),
        ("containerd", "v2.3.1", (0, 12, 0)),
        ("containerd", "v2.4.0-beta.0", (0, 12, 1)),
        ("containerd", "v3.0.0", (0, 12, 1)),
        ("cri-o", "1.26.0", (0, 2, 0)),
        ("cri-o", "1.28.11", (0, 3, 0)),
        ("cri-o", "1.34.2", (0, 10, 0)),
        ("CRI-O", "1.36.3", (0, 11, 0)),
        ("cri-o", "1.34", (0, 10, 0)),
        ("containerd", "1.6.20", OLDEST),
        ("containerd", "unknown", OLDEST),
        ("containerd", "", OLDEST),
        ("youki-d", "9.9.9", OLDEST),
    ],
)
def test_the_runtimes_release_tells_its_nri(name: str, version: str, nri: Version) -> None:
    assert nri_version(name, version) == nri


@pytest.mark.parametrize("stated", ["v0.12.1", "0.12.1", "v0.12.1-0.20260101000000-abcdef"])
def test_a_stated_version_wins(stated: str) -> None:
    assert nri_version("containerd", "v1.7.0", stated) == (0, 12, 1)


@pytest.mark.parametrize("stated", ["", "(devel)", "0.0.0-unknown", "garbage"])
def test_a_stated_version_that_is_none_is_not_taken(stated: str) -> None:
    assert nri_version("containerd", "v2.2.0", stated) == (0, 10, 0)


@pytest.mark.parametrize(
    ("nri", "mask"), [((0, 2, 0), 0x7FF), ((0, 9, 9), 0x7FF), ((0, 10, 0), 0x3FFF), ((0, 12, 2), 0x3FFF)]
)
def test_the_bits_a_runtime_accepts(nri: Version, mask: int) -> None:
    assert valid_mask(nri) == mask


def test_what_we_subscribe_to_is_known_to_every_runtime_and_nothing_more() -> None:
    assert event_mask(SUBSCRIBED, OLDEST) == event_mask(SUBSCRIBED, (0, 12, 2)) == 1 << 3 | 1 << 9 | 1 << 10 | 1 << 1


def test_an_event_the_runtime_does_not_know_is_left_out() -> None:
    wanted = [Event.CREATE_CONTAINER, Event.UPDATE_POD_SANDBOX]
    assert event_mask(wanted, (0, 8, 0)) == 1 << 3
    assert event_mask(wanted, (0, 10, 0)) == 1 << 3 | 1 << 11


@pytest.mark.parametrize("wanted", [[], [Event.UNKNOWN], [Event.UPDATE_POD_SANDBOX]])
def test_an_empty_subscription_is_refused_because_it_would_mean_everything(wanted: list[Event]) -> None:
    with pytest.raises(ValueError, match="at least one"):
        event_mask(wanted, (0, 8, 0))


def test_fields_an_old_runtime_would_ignore_are_named() -> None:
    adjustment = ContainerAdjustment(
        annotations={"a": "b"},
        mounts=[Mount(destination="/x")],
        env=[KeyValue(key="A", value="b")],
        args=["", "sh"],
        linux=LinuxContainerAdjustment(
            cgroups_path="/x", oom_score_adj=OptionalInt(value=1), namespaces=[LinuxNamespace(type="pid")]
        ),
    )
    assert ignored_fields(adjustment, (0, 6, 1)) == ["args", "linux.oom_score_adj", "linux.namespaces"]
    assert ignored_fields(adjustment, (0, 8, 0)) == ["args", "linux.namespaces"]
    assert ignored_fields(adjustment, (0, 10, 0)) == []
