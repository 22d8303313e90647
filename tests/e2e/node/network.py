"""A bridge of the host that the machines of one test session share: they see each other, the host sees them."""

from __future__ import annotations

import ipaddress
import json
import random
import secrets
import shutil
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from shared.run import run
from tests.e2e.node.places import cache, claim, locked, runs
from tests.e2e.node.processes import own_identity

_SPACE: Final = ipaddress.IPv4Network("10.213.0.0/16")
LIMIT_S: Final = 60


def ip(*words: str) -> str:
    return run(["ip", *words], timeout_s=LIMIT_S).stdout


def _free_subnet() -> ipaddress.IPv4Network:
    used = [
        ipaddress.ip_network(route["dst"]) for route in json.loads(ip("-json", "route")) if route["dst"] != "default"
    ]
    candidates = [net for net in _SPACE.subnets(new_prefix=24) if not any(net.overlaps(other) for other in used)]
    return random.choice(candidates)


class Network:
    """Bridge with a /24 of its own; ``attach`` gives a machine the next address on it."""

    def __init__(self) -> None:
        self.name = secrets.token_hex(3)
        self.bridge = bridge_of(self.name)
        self.record = runs() / f"network-{self.name}"
        self._next = 2

    def start(self) -> None:
        claim(self.record, own_identity())
        with locked(cache() / "network.lock"):
            self.subnet = _free_subnet()
            self.host = str(self.subnet[1])
            ip("link", "add", self.bridge, "type", "bridge")
            ip("addr", "add", f"{self.host}/24", "dev", self.bridge)
            ip("link", "set", self.bridge, "up")

    def attach(self, machine: str, init: int) -> str:
        """Gives the machine whose PID 1 is the host's process ``init`` an eth0; returns its address."""
        address = str(self.subnet[self._next])
        self._next += 1
        port = port_of(machine)
        ip("link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", str(init))
        ip("link", "set", port, "master", self.bridge, "up")
        inside = (
            f"link set lo up\naddr add {address}/24 dev eth0\nlink set eth0 up\nroute add default via {self.host}\n"
        )
        run(["nsenter", "-t", str(init), "-n", "ip", "-batch", "-"], timeout_s=LIMIT_S, stdin=inside.encode())
        return address

    def stop(self) -> None:
        remove_bridge(self.name)
        shutil.rmtree(self.record, ignore_errors=True)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def bridge_of(network: str) -> str:
    return f"nrb-{network}"


def port_of(machine: str) -> str:
    """Name of the host's end of a machine's cable."""
    return f"nrv-{machine}"


def remove_bridge(network: str) -> None:
    _remove(bridge_of(network))


def remove_port(machine: str) -> None:
    """Removes the machine's cable; it also goes with the machine's network namespace, a little later."""
    _remove(port_of(machine))


def _remove(interface: str) -> None:
    if Path("/sys/class/net", interface).exists():
        run(["ip", "link", "del", interface], timeout_s=LIMIT_S, check=False)
