"""What the NRI session calls, and one daemon a node."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nri_plugin.config import Config, Handler, Policy
from nri_plugin.daemon import RestoreHandler, reload
from nri_plugin.nri.nri_pb2 import Container, PodSandbox
from nri_plugin.worker_process import WorkerProcess
from shared.contract import HANDLER, POD_CHECKPOINT
from shared.errors import Refused, RestoreError, Unavailable


class Asked:
    """A worker that gives the same verdict to all."""

    def __init__(self, verdict: RestoreError | None = None) -> None:
        self.verdict = verdict
        self.sent: list[dict[str, Any]] = []
        self.configured: list[Config] = []
        self.reconciles = False
        self.plan_was_there = False
        self.waited_s = -1.0
        self.plans = Path()

    async def prepare(self, request: dict[str, Any], container_id: str, timeout_s: float) -> RestoreError | None:
        self.waited_s = timeout_s
        self.plan_was_there = (self.plans / container_id / "request").exists()
        if isinstance(self.verdict, RestoreError | None):
            return self.verdict
        raise self.verdict

    def send(self, job: dict[str, Any]) -> None:
        self.sent.append(job)

    def configure(self, config: Config) -> None:
        self.configured.append(config)

    def reconcile(self) -> None:
        self.sent.append({"job": "reconcile"})


OURS = PodSandbox(id="p1", name="web", namespace="default", runtime_handler=HANDLER)
OTHER = PodSandbox(id="p2", name="web", namespace="default", runtime_handler="runc")
CONTAINER = Container(id="a" * 64, name="main")
LIMIT_S = 1.7


def handler(config: Config, verdict: Any = None) -> tuple[RestoreHandler, Asked]:
    asked = Asked(verdict)
    asked.plans = config.paths.plans
    return RestoreHandler(config, cast(WorkerProcess, asked)), asked


def test_plan_stands_before_the_worker_is_asked_and_is_named_to_criu(config: Config) -> None:
    ours, asked = handler(config)
    adjustment = asyncio.run(ours.create_container(OURS, CONTAINER, LIMIT_S))
    assert asked.plan_was_there
    plan = config.paths.plans / ("a" * 64)
    assert dict(adjustment.annotations) == {"org.criu.config": f"{plan}/criu.conf"}
    assert plan.stat().st_mode & 0o777 == 0o700
    assert all(file.stat().st_mode & 0o077 == 0 for file in plan.iterdir() if not file.is_symlink())


def test_refusal_of_the_worker_is_the_answer(config: Config) -> None:
    ours, _ = handler(config, Refused("MountMissing", "add it"))
    with pytest.raises(Refused) as refused:
        asyncio.run(ours.create_container(OURS, CONTAINER, LIMIT_S))
    assert refused.value.reason == "MountMissing"


def test_refusal_by_the_session_itself_is_told_to_the_worker(config: Config) -> None:
    ours, asked = handler(config)
    with pytest.raises(Refused):
        asyncio.run(ours.create_container(PodSandbox(id="p", annotations={POD_CHECKPOINT: "x"}), CONTAINER, LIMIT_S))
    (job,) = asked.sent
    assert (job["job"], job["reason"], job["subject"]["container_id"]) == ("refused", "HandlerMissing", "a" * 64)


def test_defect_is_a_refusal_never_an_ordinary_start(config: Config, caplog: pytest.LogCaptureFixture) -> None:
    ours, _ = handler(config, KeyError("a defect"))
    with pytest.raises(Unavailable) as refused:
        asyncio.run(ours.create_container(OURS, CONTAINER, LIMIT_S))
    assert refused.value.reason == "Internal"
    assert "KeyError" in caplog.text


def test_plan_that_cannot_be_written_is_a_refusal_with_the_reason(config: Config, tmp_path: Path) -> None:
    (tmp_path / "plans").write_text("a file in the way")
    ours, _ = handler(config)
    with pytest.raises(Unavailable) as refused:
        asyncio.run(ours.create_container(OURS, CONTAINER, LIMIT_S))
    assert refused.value.reason == "NodeStorageFailed"
    assert str(tmp_path / "plans") in refused.value.sentence


def test_container_id_that_is_a_path_is_refused(config: Config, tmp_path: Path) -> None:
    ours, _ = handler(config)
    with pytest.raises(Unavailable) as refused:
        asyncio.run(ours.create_container(OURS, Container(id="../../etc", name="main"), LIMIT_S))
    assert refused.value.reason == "ContainerIdInvalid"
    assert list(tmp_path.iterdir()) == []


def test_events_of_ours_reach_the_worker_and_no_others(config: Config) -> None:
    ours, asked = handler(config)
    annotated = PodSandbox(id="p3", runtime_handler="runc", annotations={POD_CHECKPOINT: "x"})

    async def events() -> None:
        for pod in (OURS, OTHER, annotated):
            await ours.stop_container(pod, CONTAINER)
            await ours.remove_container(pod, CONTAINER)
            await ours.stop_pod_sandbox(pod)
        await ours.synchronize([OURS, OTHER], [CONTAINER])

    asyncio.run(events())
    named = {"container_id": "a" * 64}
    assert asked.sent == [
        {"job": "stop", **named},
        {"job": "remove", **named},
        {"job": "stop_pod", "pod_id": "p1"},
        {"job": "stop", **named},
        {"job": "remove", **named},
        {"job": "reconcile"},
    ]
    assert asked.reconciles


# ---- one daemon a node ----


NAMELESS = PodSandbox(id="p3", name="web", namespace="default")


@pytest.fixture
def default(config: Config) -> Config:
    return replace(config, handler=Handler(default=True))


def test_worker_that_is_away_holds_up_no_ordinary_container_of_the_default_handler(default: Config) -> None:
    ours, _ = handler(default, Unavailable("WorkerLost", "it is started again"))
    asyncio.run(ours.create_container(NAMELESS, CONTAINER, LIMIT_S))
    for pod in (OURS, PodSandbox(id="p", annotations={POD_CHECKPOINT: "registry.example/c:1"})):
        with pytest.raises(Unavailable, match="it is started again"):
            asyncio.run(ours.create_container(pod, CONTAINER, LIMIT_S))


def test_checkpoint_that_the_worker_refuses_is_refused_under_the_default_handler(default: Config) -> None:
    ours, _ = handler(default, Refused("MountMissing", "add it"))
    with pytest.raises(Refused, match="add it"):
        asyncio.run(ours.create_container(NAMELESS, CONTAINER, LIMIT_S))


def test_events_of_pods_without_a_handler_reach_the_worker_where_it_is_the_default(default: Config) -> None:
    ours, asked = handler(default)
    asyncio.run(ours.stop_pod_sandbox(NAMELESS))
    asyncio.run(ours.remove_container(NAMELESS, CONTAINER))
    asyncio.run(ours.stop_pod_sandbox(OTHER))
    assert [each["job"] for each in asked.sent] == ["stop_pod", "remove"]


@pytest.mark.parametrize(
    ("answer_s", "limit_s", "waited_s"), [(0.5, 1.7, 0.5), (3.0, 1.7, 1.5), (3.0, 4.7, 3.0), (0.5, 0.1, 0.0)]
)
def test_verdict_is_waited_for_as_configured_but_no_longer_than_the_runtime_waits(
    config: Config, answer_s: float, limit_s: float, waited_s: float
) -> None:
    ours, asked = handler(replace(config, limits=replace(config.limits, answer_s=answer_s)))
    asyncio.run(ours.create_container(OURS, CONTAINER, limit_s))
    assert asked.waited_s == pytest.approx(waited_s)


# ---- SIGHUP ----


def test_reload_holds_for_the_session_and_the_worker(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, asked = handler(config)
    file = tmp_path / "config.toml"
    file.write_text('[policy]\nnamespaces = ["batch"]\n[limits]\nanswer_s = 0.2\n[nri]\nindex = "10"\n')
    reload(ours, file)
    assert ours.config == replace(
        config, policy=Policy(namespaces=("batch",)), limits=replace(config.limits, answer_s=0.2)
    )
    assert asked.configured == [ours.config]
    assert "hold once nri-restore is restarted" in caplog.text


def test_reload_of_a_file_that_cannot_be_used_changes_nothing(
    config: Config, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ours, asked = handler(config)
    file = tmp_path / "config.toml"
    file.write_text("[policy]\nnamespace = 1\n")
    reload(ours, file)
    assert ours.config == config
    assert not asked.configured
    assert "policy has no key namespace" in caplog.text
    assert "stays as it was" in caplog.text
