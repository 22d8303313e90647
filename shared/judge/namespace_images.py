"""Writes what CRIU reads of namespaces: that the pod's are handed in, and where the clocks were.

Of the namespaces that a container shares with its pod nothing is set up again: they are the live pod's. CRIU makes a
time namespace for every tree it restores and sets its clocks as they were (criu/timens.c, prepare_timens), for timers
and timeouts of the processes count by them; no clock of the node changes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import NetnsEntry, PidnsEntry, TimensEntry
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind
from shared.judge.namespaces import NETWORK_KEY, PROCESS_KEY
from shared.judge.rules import Fields, Rules, bounded, default, derived
from shared.judge.writing import ImageFile, image_file

_NETWORK: Final = default("the pod's network is set up before, by the runtime")
_DEVICE: Final = default("no network device is made; the image is refused as a whole (images.py)")
_USERS: Final = default("a user namespace of the container is refused as a whole (namespaces.py)")
_NAMED: Final = derived("the host name is the live pod's")
SECONDS_MAX: Final = 1 << 32

FIELDS: Final[Fields] = {
    "NetnsEntry": {
        **dict.fromkeys(
            ("def_conf", "all_conf", "def_conf4", "all_conf4", "def_conf6", "all_conf6", "nsids"), _NETWORK
        ),
        "ext_key": bounded("only the name under which the runtime hands in the pod's network"),
        **dict.fromkeys(("unix_conf", "ipv4_sysctl"), _NETWORK),
    },
    "NetnsId": dict.fromkeys(("target_ns_id", "netnsid_value"), _NETWORK),
    "SysctlEntry": dict.fromkeys(("type", "iarg", "sarg"), _NETWORK),
    "NetDeviceEntry": dict.fromkeys(
        (
            "type", "ifindex", "mtu", "flags", "name", "tun", "address", "conf", "conf4", "conf6", "macvlan",
            "peer_ifindex", "peer_nsid", "master", "sit",
        ),
        _DEVICE,
    ),
    "MacvlanLinkEntry": dict.fromkeys(("mode", "flags"), _DEVICE),
    "SitEntry": dict.fromkeys(
        (
            "link", "local", "remote", "ttl", "tos", "pmtudisc", "proto", "flags", "encap_type", "encap_flags",
            "encap_sport", "encap_dport", "rd_prefixlen", "rd_prefix", "relay_prefixlen", "relay_prefix",
        ),
        _DEVICE,
    ),
    "PidnsEntry": {"ext_key": bounded("only the name under which the runtime hands in the pod's processes")},
    "UtsnsEntry": {"nodename": _NAMED, "domainname": _NAMED},
    "UsernsEntry": {"uid_map": _USERS, "gid_map": _USERS},
    "UidGidExtent": dict.fromkeys(("first", "lower_first", "count"), _USERS),
    "TimensEntry": {
        "monotonic": bounded("its own fields have rules"),
        "boottime": bounded("its own fields have rules"),
    },
    "Timespec": {
        "tv_sec": bounded("a machine that ran for less than 136 years", lambda seconds: seconds < SECONDS_MAX),
        "tv_nsec": bounded("less than a second", lambda nanoseconds: nanoseconds < 1_000_000_000),
    },
}  # fmt: skip


def image_files(images: ImageDirectory, dump: Dump, rules: Rules) -> Iterator[ImageFile]:
    """The network and PID namespace that are handed in, and the clocks."""
    root, outside = dump.root.ids, dump.inventory.ids
    if root.net_ns != outside.net_ns:
        if Kind.NETNS.file(root.net_ns) in images:
            name = images.path(Kind.NETNS.file(root.net_ns))
            rules.apply(images.one(Kind.NETNS, NetnsEntry, root.net_ns), name)
        yield image_file(Kind.NETNS, [NetnsEntry(ext_key=NETWORK_KEY.encode())], root.net_ns)
    if root.pid_ns != outside.pid_ns and dump.pod.process_key:
        yield image_file(Kind.PIDNS, [PidnsEntry(ext_key=PROCESS_KEY.encode())], root.pid_ns)
    number = root.time_ns if root.time_ns != outside.time_ns else 0
    if Kind.TIMENS.file(number) in images:
        clocks = images.one(Kind.TIMENS, TimensEntry, number)
        rules.apply(clocks, images.path(Kind.TIMENS.file(number)))
        yield image_file(Kind.TIMENS, [clocks], 0)
