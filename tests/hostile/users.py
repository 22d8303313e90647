"""An ordinary victim made one of user 1000: dumps of other users than root need rights that not every machine has."""

from __future__ import annotations

from typing import Any

from tests.hostile.forgery import Forgery

USER = 1000


def as_user(forgery: Forgery) -> None:
    """As a container with runAsUser and runAsGroup 1000 is dumped: no capabilities but the bounding set."""
    for creds in forgery.creds():
        for field in ("uid", "euid", "suid", "fsuid", "gid", "egid", "sgid", "fsgid"):
            setattr(creds, field, USER)
        creds.groups[:] = [USER]
        creds.cap_prm[:] = creds.cap_eff[:] = creds.cap_inh[:] = creds.cap_amb[:] = [0, 0]

    def spec(document: dict[str, Any]) -> None:
        document["process"]["user"] = {"uid": USER, "gid": USER, "additionalGids": [USER]}

    forgery.json("spec.dump", spec)
