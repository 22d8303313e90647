"""Namespaces of the node instead of the pod's, or more of them."""

from __future__ import annotations

from typing import Any

from shared.criu import criu_pb2 as pb
from tests.hostile.attack import Change, add, attack
from tests.hostile.forgery import Forgery, messages_of

KINDS = ("pid", "net", "ipc", "uts", "mnt", "user", "cgroup", "time")


def _into_the_nodes(kind: str) -> Change:
    def change(forgery: Forgery) -> None:
        outside = getattr(forgery.inventory.root_ids, f"{kind}_ns_id")
        for ids in forgery.every_ids():
            if kind == "mnt":
                forgery.raw(
                    f"mountpoints-{outside}.img", forgery.contents()[f"checkpoint/mountpoints-{ids.mnt_ns_id}.img"]
                )
            setattr(ids, f"{kind}_ns_id", outside)

    return change


def _renumbered(mounts: list[Any]) -> list[Any]:
    """The mounts as another namespace has them: each with a number of its own."""
    made = [pb.MntEntry.FromString(mount.SerializeToString()) for mount in mounts]
    for entry in made:
        entry.mnt_id += 100_000
        entry.parent_mnt_id += 100_000
    return made


def _nested(kind: str) -> Change:
    def change(forgery: Forgery) -> None:
        ids = forgery.ids(forgery.pids[-1])
        old, new = getattr(ids, f"{kind}_ns_id"), 99
        setattr(ids, f"{kind}_ns_id", new)
        if kind == "mnt":
            forgery.new_image(f"mountpoints-{new}.img", *_renumbered(forgery.mounts))
        for name in ("utsns", "ipcns-var", "netns"):
            if f"checkpoint/{name}-{old}.img" in forgery.files:
                content = forgery.contents()[f"checkpoint/{name}-{old}.img"]
                forgery.raw(f"{name}-{new}.img", content)

    return change


for _kind in KINDS:
    if _kind in ("pid", "net", "ipc", "uts", "mnt"):
        add(f"the node's {_kind} namespace", "NamespacesDiffer", _into_the_nodes(_kind))
    add(f"a second {_kind} namespace inside", "NestedNamespaces", _nested(_kind))


def _own(kind: str) -> Change:
    def change(forgery: Forgery) -> None:
        for ids in forgery.every_ids():
            setattr(ids, f"{kind}_ns_id", 98)

    return change


add("a user namespace", "NamespacesDiffer", _own("user"))


@attack("a user namespace with a map of all users", "ImageForeign")
def _user(forgery: Forgery) -> None:
    forgery.raw("userns-98.img", messages_of("userns-%.img", _Map()))  # type: ignore[arg-type]
    _own("user")(forgery)


class _Map:
    """userns_entry: 0 0 4294967295 for users and groups (images/userns.proto)."""

    def SerializeToString(self) -> bytes:  # noqa: N802
        extent = b"\x08\0\x10\0\x18" + b"\xff\xff\xff\xff\x0f"
        return b"".join(bytes([key, len(extent)]) + extent for key in (10, 18))


add("a cgroup namespace", "NamespacesDiffer", _own("cgroup"))


@attack("a network namespace that CRIU makes and sets up", "NamespacesDiffer")
def _network(forgery: Forgery) -> None:
    forgery.image(f"netns-{forgery.ids().net_ns_id}.img")[0].ClearField("ext_key")


@attack("a network namespace under another key", "NamespacesDiffer")
def _key(forgery: Forgery) -> None:
    forgery.image(f"netns-{forgery.ids().net_ns_id}.img")[0].ext_key = b"extRootPidNS"


@attack("a host name with a zero byte", "ImageDamaged")
def _hostname(forgery: Forgery) -> None:
    forgery.image(f"utsns-{forgery.ids().uts_ns_id}.img")[0].nodename = b"a\0b"


@attack("three numbers for semaphores", "ImageDamaged")
def _semaphores(forgery: Forgery) -> None:
    del forgery.image(f"ipcns-var-{forgery.ids().ipc_ns_id}.img")[0].sem_ctls[:1]


def _foreign(name: str, content: bytes = b"x") -> Change:
    def change(forgery: Forgery) -> None:
        forgery.raw(name, content)

    return change


# ---- images that CRIU would act on beyond the container ----
_EMPTY: Any = pb.UtsnsEntry()
for _name, _pattern in (
    ("apparmor.img", "apparmor.img"),
    ("autofs-17.img", "autofs-%.img"),
    ("binfmt-misc.img", "binfmt-misc.img"),
    ("netdev-10.img", "netdev-%.img"),
    ("userns-7.img", "userns-%.img"),
    ("ext-files.img", "ext-files.img"),
    ("tunfile.img", "tunfile.img"),
):
    add(f"{_name}", "ImageForeign", _foreign(_name, messages_of(_pattern, _EMPTY)))
for _name in (
    "iptables-10.img",
    "ip6tables-10.img",
    "nftables-10.img",
    "route-10.img",
    "route6-10.img",
    "rule-10.img",
    "ifaddr-10.img",
):
    add(f"{_name}, which CRIU hands to a program of the node", "ImageForeign", _foreign(_name, b"-A OUTPUT -j DROP\n"))
for _name in (
    "amdgpu-kfd-1.img",
    "something.img",
    "criu.conf",
    "binfmt-misc-4.img",
    "netns-ct-10.img",
    "netns-exp-10.img",
    "seccomp-2.img",
):
    add(f"{_name}, which nobody knows", "ImageForeign", _foreign(_name))


@attack("plugins of CRIU", "ImageForeign")
def _plugins(forgery: Forgery) -> None:
    forgery.inventory.plugins_entry.plugins.append(b"../../../tmp/evil")
