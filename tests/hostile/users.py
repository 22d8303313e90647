"""A checkpoint of root's made one of another user's: dumping those takes CAP_SYS_RESOURCE (prlimit(2)), which the
machines that tests run on may lack."""

from __future__ import annotations

from typing import Any

from tests.hostile.forgery import Forgery
from tests.hostile.generator.layout import join, parse, pattern_of

USER = 1000
_OWNED = {"ghost-file-%.img", "ipcns-msg-%.img", "ipcns-sem-%.img", "ipcns-shm-%.img", "memfd.img", "tty-info.img"}
"""Images of objects that somebody made."""


def as_user(forgery: Forgery, uid: int = USER, gid: int = USER) -> None:
    """As a container with this runAsUser and runAsGroup is dumped: no capabilities but root's and the bounding set."""
    for creds in forgery.creds():
        for field in ("uid", "euid", "suid", "fsuid"):
            setattr(creds, field, uid)
        for field in ("gid", "egid", "sgid", "fsgid"):
            setattr(creds, field, gid)
        creds.groups[:] = [gid]
        if uid:
            creds.cap_prm[:] = creds.cap_eff[:] = creds.cap_inh[:] = creds.cap_amb[:] = [0, 0]
    for entry in forgery.opened:
        for field, part in entry.ListFields():
            if field.message_type is not None and "fown" in field.message_type.fields_by_name and part.fown.pid:
                part.fown.uid = part.fown.euid = uid

    _own_objects(forgery, uid, gid)

    def spec(document: dict[str, Any]) -> None:
        document["process"]["user"] = {"uid": uid, "gid": gid, "additionalGids": [gid]}

    forgery.json("spec.dump", spec)


def _own_objects(forgery: Forgery, uid: int, gid: int) -> None:
    """What a process of the user makes belongs to the user."""
    for name in [each for each in forgery.files if pattern_of(each.removeprefix("checkpoint/")) in _OWNED]:
        image = name.removeprefix("checkpoint/")
        parts: list[Any] = parse(image, forgery.files[name])
        for part in parts:
            owned = getattr(part, "desc", part)
            for field, value in (("uid", uid), ("cuid", uid), ("gid", gid), ("cgid", gid)):
                if not isinstance(part, bytes) and field in owned.DESCRIPTOR.fields_by_name:
                    setattr(owned, field, value)
        forgery.files[name] = join(image, parts)
