"""What the probes and the preStop hook of the daemon's pod say."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Literal

import pytest

from nri_plugin.config import Config
from nri_plugin.daemonset import __main__ as roles
from nri_plugin.daemonset import installing
from nri_plugin.metrics import Metrics
from nri_plugin.restore.plan import Plan
from nri_plugin.scrape import served


@pytest.fixture(autouse=True)
def here(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    config.paths.plans.mkdir()
    monkeypatch.setattr(roles, "enter_node", lambda: None)
    monkeypatch.setattr(roles, "load", lambda _: config)


def asked(config: Config, role: Literal["alive", "ready"], *, connected: bool) -> str:
    """What a probe says of a daemon whose metrics are these; empty where it succeeds."""

    async def run() -> str:
        async with served(config.paths.plans, 0, lambda: Metrics("1").render({}, connected=connected)):
            try:
                await asyncio.to_thread(roles.main, role)
            except SystemExit as refused:
                return str(refused)
            return ""

    return asyncio.run(run())


def test_daemon_is_ready_once_it_is_connected(config: Config) -> None:
    assert asked(config, "ready", connected=True) == ""
    assert "DaemonNotConnected" in asked(config, "ready", connected=False)
    assert asked(config, "alive", connected=False) == "", "it connects by itself; a restart would not help"


@pytest.mark.parametrize(("options", "default"), [((), False), (("--default-runtime",), True)])
def test_install_passes_on_whether_the_handler_becomes_the_default(
    monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], default: bool
) -> None:
    asked: list[bool] = []
    monkeypatch.setattr(installing, "install", lambda tree, *, default: asked.append(default))
    roles.main("install", *options)
    assert asked == [default]


def test_install_takes_no_other_option() -> None:
    with pytest.raises(SystemExit, match="install knows no option --default; it knows --default-runtime"):
        roles.main("install", "--default")


def test_daemon_that_does_not_answer_is_not_alive() -> None:
    with pytest.raises(SystemExit, match="DaemonSilent"):
        roles.main("alive")


@pytest.mark.parametrize("state", ["preparing", "restoring"])
def test_drain_waits_for_what_is_under_way(planned: Callable[..., Plan], state: str) -> None:
    plan = planned()
    if state == "restoring":
        plan.write("status", "ok\n")
        plan.write("restoring", "")
    draining = threading.Thread(target=roles.main, args=["drain"])
    draining.start()
    draining.join(0.5)
    assert draining.is_alive()
    if state == "restoring":
        plan.write("restored", "1\n")
    else:
        plan.write("status", "ok\n")
    draining.join(10)
    assert not draining.is_alive()


def test_drain_gives_up_in_time_for_the_pods_end(planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(roles, "DRAIN_S", 0.01)
    planned()
    roles.main("drain")
