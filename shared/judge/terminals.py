"""Terminals: CRIU opens the file that an entry names, as root, gives it permissions and an owner, and writes into it.

So the file must be a terminal of the container's own devpts, or /dev/tty, and the terminal's number, kind and device
must agree: CRIU takes each from another field (criu/tty.c: get_tty_driver, tty_info_setup, do_open_tty_reg,
restore_tty_params, pty_restore_queued_data, tty_has_active_pair).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import Final

from shared.criu.criu_pb2 import RegFileEntry, TermiosEntry, TtyDataEntry, TtyFileEntry, TtyInfoEntry
from shared.criu.decode import damaged
from shared.criu.dump import Dump
from shared.criu.images import ImageDirectory, Kind, text
from shared.criu.mounts import MountEntry
from shared.errors import Refused
from shared.judge.open_flags import flags_rule, id_rule, owner_rule
from shared.judge.places import foreign
from shared.judge.regular_files import REGULAR, TERMINAL, of_kind
from shared.judge.rules import Fields, Rules, bounded, derived, free
from shared.judge.writing import ImageFile, image_file
from shared.spec import RuntimeSpec

PTY, CONSOLE, VIRTUAL, CONTROLLING, SERIAL = 1, 2, 3, 4, 6
"""tty.proto, TtyType. 5 is a terminal from outside, which CRIU has from whom it was called by."""
_INDEX_MAX: Final = 1000
_NUMBERS: Final = {CONSOLE: 1002 << 1, VIRTUAL: 1004 << 1, CONTROLLING: 1006 << 1, SERIAL: 1010 << 1}
"""CRIU's own numbers of terminals that are no pseudo-terminal (criu/tty.c, CONSOLE_INDEX …, tty_gen_id)."""
_MASTER_MAJORS: Final = range(128, 136)
_SLAVE_MAJOR: Final = 136
_CHARACTERS_MIN: Final = 19
"""criu/include/tty.h, TERMIOS_NCC: fewer are refused …"""
_CHARACTERS_USED: Final = 8
"""… and of these CRIU copies 32 bytes (termios_copy); when it dumps, the rest is what its memory held."""
_CHARACTERS_MAX: Final = 64
_DATA_BYTES_MAX: Final = 64 << 10
"""More than the kernel keeps for a terminal that nobody reads (drivers/tty/tty_buffer.c)."""
_TTY_GROUP: Final = 5
"""The group that runtimes give terminals (devpts, gid=5)."""
_OWN: Final = free("a process may set that of its own terminal")

FIELDS: Final[Fields] = {
    "TtyFileEntry": {
        "id": id_rule(),
        "tty_info_id": bounded("a terminal of tty-info.img"),
        "flags": flags_rule("how the terminal is opened"),
        "fown": owner_rule(),
        "regf_id": bounded("a character device of the container's own devpts, or /dev/tty"),
    },
    "TtyInfoEntry": {
        "id": bounded("follows from the terminal's kind and index"),
        "type": bounded("a pseudo-terminal or /dev/tty; others only where the container has the node's devices"),
        "locked": _OWN,
        "exclusive": derived("CRIU does not read it"),
        "packet_mode": _OWN,
        "sid": bounded("a session of the dump"),
        "pgrp": free("the kernel takes only a group of that session (tiocspgrp)"),
        "rdev": bounded("the device of the terminal's kind"),
        "termios": free("TermiosEntry has rules of its own"),
        "termios_locked": derived("locking a terminal's settings takes CAP_SYS_ADMIN; they are not locked"),
        "winsize": _OWN,
        "pty": bounded("the index that the terminal's number and path have"),
        "dev": derived("CRIU only looks for it among terminals from outside"),
        "uid": bounded("one that the container may be, or root's"),
        "gid": bounded("one that the container may be, root's, or the group of terminals"),
    },
    "TtyPtyEntry": {"index": bounded("CRIU has no more", lambda index: index <= _INDEX_MAX)},
    "TtyDataEntry": {
        "tty_id": bounded("a pseudo-terminal of tty-info.img"),
        "data": bounded("what the kernel keeps of a terminal", lambda data: len(data) <= _DATA_BYTES_MAX),
    },
    "TermiosEntry": {
        "c_iflag": _OWN,
        "c_oflag": _OWN,
        "c_cflag": _OWN,
        "c_lflag": _OWN,
        "c_line": free("the kernel keeps the number; only TIOCSETD changes the line discipline"),
        "c_ispeed": derived("CRIU does not read it"),
        "c_ospeed": derived("CRIU does not read it"),
        "c_cc": bounded("as many as CRIU reads; those behind them are written as 0"),
    },
    "WinsizeEntry": {"ws_row": _OWN, "ws_col": _OWN, "ws_xpixel": _OWN, "ws_ypixel": _OWN},
}


def check_terminals(images: ImageDirectory, dump: Dump) -> None:
    """Raises CheckpointInvalid("ImageDamaged") for what CRIU would take for another terminal, or crash on."""
    name = images.path(Kind.TTY_INFO.file())
    infos: set[int] = set()
    sessions = {task.sid for task in dump.tasks}
    for info in _infos(images):
        if info.id in infos or info.id != _number(info):
            raise damaged(name, f"has the terminal {info.id} twice, or with the kind, device or index of another one")
        infos.add(info.id)
        if info.sid and info.sid not in sessions:
            raise damaged(name, f"has the terminal {info.id} of session {info.sid}, which no process is in")
        settings = (info.HasField("termios"), info.HasField("termios_locked"), info.HasField("winsize"))
        if any(settings) and not all(settings):
            raise damaged(name, f"has only some settings of the terminal {info.id}")
        if info.HasField("termios") and not _CHARACTERS_MIN <= len(info.termios.c_cc) <= _CHARACTERS_MAX:
            raise damaged(name, f"has {len(info.termios.c_cc)} special characters of the terminal {info.id}")
    files = images.path(Kind.FILES.file())
    terminals = _terminals(images)
    regular = {entry.id: entry.reg for entry in of_kind(images, REGULAR)} if terminals else {}
    for terminal in terminals:
        if terminal.tty_info_id not in infos:
            raise damaged(files, f"has the terminal {terminal.id}, of which tty-info.img says nothing")
        file = regular.get(terminal.regf_id) if terminal.HasField("regf_id") else None
        if file is None or not stat.S_ISCHR(file.mode) or stat.S_IMODE(file.mode) > 0o777:
            raise damaged(files, f"has the terminal {terminal.id}, whose file is missing or no device")
        if terminal.regf_id in dump.remapped:
            raise damaged(files, f"has the terminal {terminal.id}, whose file was deleted")
    pairs = {info.id for info in _infos(images) if info.type == PTY}
    held: set[int] = set()
    for data in _data(images):
        if data.tty_id not in pairs or data.tty_id in held:
            raise damaged(images.path(Kind.TTY_DATA.file()), f"has data of terminal {data.tty_id} twice, or of no one")
        held.add(data.tty_id)


def _number(info: TtyInfoEntry) -> int | None:
    """The only number that a terminal of this kind, device and index has; None: there is no such terminal."""
    major, minor = os.major(info.rdev), os.minor(info.rdev)
    if info.type == PTY:
        if not info.HasField("pty") or info.pty.index > _INDEX_MAX:
            return None
        master = major in _MASTER_MAJORS or (major, minor) == (5, 2)
        return info.pty.index << 1 | master if master or major == _SLAVE_MAJOR else None
    devices = {
        CONSOLE: (major, minor) == (5, 1),
        CONTROLLING: (major, minor) == (5, 0),
        VIRTUAL: major == 4 and minor < 64,  # MAX_NR_CONSOLES
        SERIAL: major in (188, 204),
    }
    return _NUMBERS[info.type] if devices.get(info.type) and not info.HasField("pty") else None


def terminal_refusals(images: ImageDirectory, dump: Dump, live: RuntimeSpec, *, privileged: bool) -> Iterator[Refused]:
    """FileExceeds for a terminal's file elsewhere, IdentityExceeds for a terminal's owner.

    ``privileged``: the container has every device of the node.
    """
    if privileged:
        return
    terminals = _terminals(images)
    infos = {info.id: info for info in _infos(images)}
    mounts = {mount.id: mount for mount in dump.mounts}
    regular = {entry.id: entry.reg for entry in of_kind(images, REGULAR)} if terminals else {}
    for terminal in terminals:
        info, file = infos[terminal.tty_info_id], regular[terminal.regf_id]
        mount = mounts.get(file.mnt_id)
        if mount is None or not _is_place(info, file, mount, live):
            yield foreign(f"{text(file.name, Kind.FILES.file())}, as a terminal that is not there,")
        yield from _owner(info, live)


def _is_place(info: TtyInfoEntry, file: RegFileEntry, mount: MountEntry, live: RuntimeSpec) -> bool:
    """/dev/console is the runtime's bind mount of the terminal that it gives the container."""
    if mount.external is not None:
        return False
    own_devices = mount.fstype == "tmpfs" and mount.mountpoint == "/dev"
    if info.type == CONTROLLING:
        return bool(file.name == b"/dev/tty") and own_devices
    if os.major(info.rdev) != _SLAVE_MAJOR:
        at = file.name in (b"/dev/ptmx", b"/dev/pts/ptmx")
        return at and (own_devices or mount.fstype == "devpts")
    if file.name == b"/dev/console":
        return live.terminal and mount.fstype == "devpts"
    return bool(file.name == b"/dev/pts/%d" % info.pty.index) and mount.fstype == "devpts"


def _owner(info: TtyInfoEntry, live: RuntimeSpec) -> Iterator[Refused]:
    """A container of root may give its terminals to anybody; another user's are its own, or the runtime's."""
    groups = {0, _TTY_GROUP, live.gid, *live.additional_gids}
    if live.uid and (info.uid not in (0, live.uid) or info.gid not in groups):
        yield Refused(
            "IdentityExceeds",
            f"the checkpoint has a terminal of uid {info.uid} and gid {info.gid}, the pod's container runs as "
            f"{live.uid}; a container with these rights could not have such a terminal",
        )


def terminal_images(images: ImageDirectory, held: set[int], rules: Rules) -> Iterator[ImageFile]:
    """tty-info.img and tty-data.img of the terminals that are ``held``. Raises Refused("FieldExceeds")."""
    wanted = {terminal.tty_info_id for terminal in _terminals(images) if terminal.id in held}
    infos = []
    for info in _infos(images):
        if info.id in wanted:
            made = TtyInfoEntry()
            made.CopyFrom(info)
            rules.apply(made, Kind.TTY_INFO.file())
            _settle(made)
            infos.append(made)
    if infos:
        yield image_file(Kind.TTY_INFO, infos)
    waiting = []
    for data in _data(images):
        if data.tty_id in wanted:
            copied = TtyDataEntry()
            copied.CopyFrom(data)
            rules.apply(copied, Kind.TTY_DATA.file())
            waiting.append(copied)
    if waiting:
        yield image_file(Kind.TTY_DATA, waiting)


def _settle(info: TtyInfoEntry) -> None:
    if info.HasField("termios"):
        count = _CHARACTERS_MIN
        info.termios.c_cc[_CHARACTERS_USED:] = [0] * (count - _CHARACTERS_USED)
        info.termios_locked.CopyFrom(
            TermiosEntry(c_iflag=0, c_oflag=0, c_cflag=0, c_lflag=0, c_line=0, c_ispeed=0, c_ospeed=0, c_cc=[0] * count)
        )


def _terminals(images: ImageDirectory) -> list[TtyFileEntry]:
    return [entry.tty for entry in of_kind(images, TERMINAL)]


def _infos(images: ImageDirectory) -> list[TtyInfoEntry]:
    return images.entries(Kind.TTY_INFO, TtyInfoEntry) if Kind.TTY_INFO.file() in images else []


def _data(images: ImageDirectory) -> list[TtyDataEntry]:
    return images.entries(Kind.TTY_DATA, TtyDataEntry) if Kind.TTY_DATA.file() in images else []
