"""``python -m nri_plugin.daemonset ROLE [OPTION]``: what the pod's containers, its probes and its preStop hook run."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from nri_plugin.cluster.access import SERVICE_ACCOUNT, VARIABLE
from nri_plugin.config import DEFAULT_PATH, load
from nri_plugin.daemonset.entering import enter_node, kept
from nri_plugin.daemonset.places import CURRENT
from nri_plugin.restore.outcome import state_of
from nri_plugin.restore.plan import plans_in
from nri_plugin.scrape import ask, hears_of_containers
from shared.errors import RestoreError, Unavailable

DEFAULT_RUNTIME: Final = "--default-runtime"
DRAIN_S: Final = 60.0
"""Less than the pod's terminationGracePeriodSeconds."""
CERTIFICATES: Final = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
)
"""Where distributions keep what they trust (Go crypto/x509/root_linux.go); our OpenSSL knows Debian's folder only."""


def daemon() -> None:
    """Becomes the daemon, as it is installed on the node."""
    account = kept(SERVICE_ACCOUNT)
    enter_node()
    trusted = next((each for each in CERTIFICATES if Path(each).exists()), None)
    environment = {
        **({"SSL_CERT_FILE": trusted} if trusted else {}),
        **os.environ,
        **({VARIABLE: str(account)} if account else {}),
    }
    command = [str(CURRENT / "bin/python3"), "-m", "nri_plugin.cli", "run"]
    os.execve(command[0], command, environment)


def install(option: str | None = None) -> None:
    """``--default-runtime`` is that of ``nri-restore node configure``."""
    from nri_plugin.daemonset.installing import install

    if option not in {None, DEFAULT_RUNTIME}:
        sys.exit(f"nri-restore: install knows no option {option}; it knows {DEFAULT_RUNTIME}")
    install(CURRENT.resolve(), default=option == DEFAULT_RUNTIME)


def uninstall() -> None:
    from nri_plugin.daemonset.installing import uninstall

    uninstall()


def idle() -> None:
    """Does nothing until it is ended: the pod of a DaemonSet must go on."""
    while True:
        signal.pause()


def drain() -> None:
    """Waits until no restore is under way: without the daemon those that are being prepared have to start over."""
    enter_node()
    plans, deadline = load(DEFAULT_PATH).paths.plans, time.monotonic() + DRAIN_S
    while any(state_of(each) in {"preparing", "restoring"} for each in plans_in(plans)) and time.monotonic() < deadline:
        time.sleep(0.2)


def alive() -> None:
    """Raises Unavailable("DaemonSilent") where the daemon does not answer."""
    _metrics()


def ready() -> None:
    """Raises Unavailable: DaemonSilent; DaemonNotConnected where it does not hear of the runtime's containers."""
    if not hears_of_containers(_metrics()):
        raise Unavailable("DaemonNotConnected", "the daemon is not connected to the container runtime; is NRI on?")


def _metrics() -> str:
    enter_node()
    plans = load(DEFAULT_PATH).paths.plans
    try:
        return ask(plans)
    except OSError as error:
        raise Unavailable("DaemonSilent", f"the daemon does not answer in {plans}: {error}") from error


ROLES: Final[dict[str, Callable[..., None]]] = {
    "run": daemon,
    "install": install,
    "uninstall": uninstall,
    "idle": idle,
    "drain": drain,
    "alive": alive,
    "ready": ready,
}


def main(role: str, *options: str) -> None:
    """An error of ours is one line and exit status 1."""
    try:
        ROLES[role](*options)
    except RestoreError as error:
        sys.exit(f"nri-restore: {error.reason}: {error}")


if __name__ == "__main__":
    main(*sys.argv[1:])
