"""A checkpoint of root's made one of another user's: dumping those takes CAP_SYS_RESOURCE (prlimit(2)), which the
machines that tests run on may lack."""

from __future__ import annotations

from typing import Any

from tests.hostile.forgery import Forgery

USER = 1000


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

    def spec(document: dict[str, Any]) -> None:
        document["process"]["user"] = {"uid": uid, "gid": gid, "additionalGids": [gid]}

    forgery.json("spec.dump", spec)
