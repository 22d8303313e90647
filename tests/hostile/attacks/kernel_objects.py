"""Timers, sockets and owners of files that CRIU sets up with its own rights, and what leads to other processes."""

from __future__ import annotations

import os
import stat

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, add
from tests.hostile.forgery import Forgery

ROOT = pb.FownEntry(uid=0, euid=0, signum=10, pid_type=1, pid=1)


def _opened(kind: int, /, **part: object) -> Change:
    return lambda forgery: forgery.open_file(pb.FileEntry(type=kind, id=4711, **part)) and None  # type: ignore[arg-type, func-returns-value]


def _timer(clock: int) -> Change:
    def change(forgery: Forgery) -> None:
        forgery.core().tc.timers.posix.add(clock_id=clock)

    return change


def _path(path: str, mode: int = stat.S_IFREG | 0o600, flags: int = os.O_RDONLY) -> Change:
    return lambda forgery: forgery.open_path(path, mode, flags, mnt_id=forgery.mount("/proc").mnt_id) and None


def _below_sysctls(forgery: Forgery) -> None:
    forgery.drop_mount("/proc/sys")
    _path("/proc/sys/kernel", stat.S_IFDIR | 0o555)(forgery)


for _clock, _name in ((8, "CLOCK_REALTIME_ALARM"), (9, "CLOCK_BOOTTIME_ALARM")):
    add(f"a POSIX timer by {_name}", "TimerExceeds", _timer(_clock))
    add(f"a timer descriptor by {_name}", "TimerExceeds", _opened(17, tfd=pb.TimerfdEntry(clockid=_clock)))
for _protocol in (2, 5, 9, 12):
    nlsk = pb.NetlinkSkEntry(id=4711, protocol=_protocol, groups=[1])
    add(f"a netlink socket that listens to groups of {_protocol}", "SocketExceeds", _opened(13, nlsk=nlsk))
add(
    "a netlink socket that sends to another",
    "SocketExceeds",
    _opened(13, nlsk=pb.NetlinkSkEntry(id=4711, protocol=0, dst_portid=1)),
)
for _name, _opts in (
    ("a mark", pb.SkOptsEntry(so_mark=7)),
    ("a priority", pb.SkOptsEntry(so_priority=7)),
    ("a gigabyte to send", pb.SkOptsEntry(so_sndbuf=1 << 30)),
    ("a gigabyte to receive", pb.SkOptsEntry(so_rcvbuf=1 << 30)),
):
    add(
        f"a packet socket with {_name}",
        "SocketExceeds",
        _opened(10, psk=pb.PacketSockEntry(id=4711, type=3, opts=_opts)),
    )
    add(
        f"a Unix socket with {_name}",
        "SocketExceeds",
        _opened(5, usk=pb.UnixSkEntry(id=4711, ino=4711, type=1, state=7, opts=_opts)),
    )
for _name, _kind, _part in (
    ("an eventfd", 6, {"efd": pb.EventfdFileEntry(fown=ROOT)}),
    ("a signalfd", 9, {"sgfd": pb.SignalfdEntry(fown=ROOT)}),
    ("a pipe", 2, {"pipe": pb.PipeEntry(id=4711, pipe_id=4711, fown=ROOT)}),
    ("a timer descriptor", 17, {"tfd": pb.TimerfdEntry(fown=ROOT, clockid=1)}),
):
    add(f"{_name} that sends signals as root", "IdentityExceeds", _opened(_kind, **_part), "user")
for _name in ("mem", "environ", "task/999/maps", "pagemap"):
    add(f"{_name} of a process beside it", "FileExceeds", _path(f"/proc/999/{_name}"))
add("oom_score_adj of a process beside it", "FileExceeds", _path("/proc/999/oom_score_adj", flags=os.O_WRONLY))
add("a directory of /proc/sys that is open when that is covered", "ProtectedPathOpen", _below_sysctls)
