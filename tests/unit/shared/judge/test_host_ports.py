"""Ports matter where the pod has the node's network and no process that could have been root."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.judge.host_ports import HostPort, host_ports
from shared.spec import RuntimeSpec
from tests.support.pods import Security, read, spec, synthetic_dump

NOBODY = Security(uid=1000, gid=1000, no_new_privileges=True, drop=("ALL",), host_network=True)


def ports(security: Security, live: RuntimeSpec | None = None, **fields: Any) -> tuple[HostPort, ...]:
    made = synthetic_dump(security)
    values = {"id": 50, "family": 2, "type": 1, "proto": 6, "state": 10, "src_port": 8080}
    isk = pb.InetSkEntry(**values | fields, src_addr=[0], dst_addr=[0])
    made.add_file(pb.FileEntry(type=4, id=50, isk=isk), descriptor=9)
    return host_ports(read(made), live or spec(security), shared=lambda each: each.path == "/proc/self/ns/net")


@pytest.mark.parametrize(
    ("fields", "protocol"),
    [({}, "tcp"), ({"type": 2, "proto": 17, "state": 7}, "udp"), ({"type": 2, "proto": 17, "state": 1}, "udp")],
)
def test_ports_of_a_user_in_the_nodes_network(fields: dict[str, Any], protocol: str) -> None:
    assert ports(NOBODY, **fields) == (HostPort(protocol, 8080, frozenset({1000})),)


def test_pod_without_a_network_namespace_has_the_nodes() -> None:
    live = spec(NOBODY)
    live = replace(live, namespaces=tuple(each for each in live.namespaces if each.type != "network"))
    assert ports(NOBODY, live)


@pytest.mark.parametrize(
    ("security", "fields"),
    [
        (replace(NOBODY, host_network=False), {}),
        (replace(NOBODY, uid=0, gid=0), {}),
        (replace(NOBODY, no_new_privileges=False, drop=()), {}),  # may become root by a program of the image
        (NOBODY, {"state": 1, "dst_port": 443}),
        (NOBODY, {"src_port": 0}),
        (NOBODY, {"type": 3, "proto": 1, "state": 7}),
        (NOBODY, {"type": 2, "proto": 17, "state": 7, "opts": {"reuseaddr": True}}),
    ],
)
def test_nothing_to_look_at(security: Security, fields: dict[str, Any]) -> None:
    assert ports(security, **fields) == ()
