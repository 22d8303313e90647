"""What the engine wrote beside the images: JSON that is too deep, too large, ambiguous or a lie."""

from __future__ import annotations

from typing import Any

from tests.hostile.attack import Change, add, twin
from tests.hostile.forgery import Forgery

FILES = ("config.dump", "spec.dump", "status.dump")


def _replaced(name: str, content: bytes) -> Change:
    return lambda forgery: forgery.files.__setitem__(name, content)


def _set(name: str, *path: str, to: Any) -> Change:
    def change(document: dict[str, Any]) -> None:
        for key in path[:-1]:
            document = document.setdefault(key, {})
        document[path[-1]] = to

    return lambda forgery: forgery.json(name, change)


for _name in FILES:
    add(f"no {_name}", "MetadataMissing", lambda forgery, name=_name: forgery.files.pop(name) and None)  # type: ignore[misc]
    add(
        f"{_name} nested a hundred thousand deep",
        "MetadataMalformed",
        _replaced(_name, b'{"a":' * 100_000 + b"1" + b"}" * 100_000),
    )
    add(f"{_name} is a list", "MetadataMalformed", _replaced(_name, b"[]"))
    add(f"{_name} is no JSON", "MetadataMalformed", _replaced(_name, b"\xff\xfe{}"))
    add(f"{_name} with one key twice", "MetadataMalformed", _replaced(_name, b'{"id":"a","id":"b"}'))
    add(f"{_name} of twenty MiB", "FileTooLarge", _replaced(_name, b'{"a":"' + b"x" * (20 << 20) + b'"}'))
add("no rootfs diff", "MetadataMissing", lambda forgery: forgery.files.pop("rootfs-diff.tar") and None)
add("a base image that is a path", "MetadataMalformed", _set("config.dump", "rootfsImageRef", to="../../etc/shadow"))
add("a base image with a line break", "MetadataMalformed", _set("config.dump", "rootfsImageRef", to="a\nb"))
add(
    "a base image without a digest that nobody has",
    "BaseImageUnknown",
    _set("config.dump", "rootfsImageRef", to="registry.example/evil:latest"),
    by_node=True,
)
add(
    "a base image from a registry that the node does not restore from",
    "RegistryNotAllowed",
    _set("config.dump", "rootfsImageRef", to=f"evil.example/busybox@sha256:{'a' * 64}"),
    by_node=True,
)


@twin("a base image that the node has, by its digest, under another registry's name")
def _elsewhere(forgery: Forgery) -> None:
    def change(config: dict[str, Any]) -> None:
        config["rootfsImageRef"] = "evil.example/busybox@" + config["rootfsImageRef"].partition("@")[2]

    forgery.json("config.dump", change)


add("a user that is no number", "MetadataMalformed", _set("spec.dump", "process", "user", "uid", to="0"))
add("a user below zero", "MetadataMalformed", _set("spec.dump", "process", "user", "uid", to=-1))
add("another user in the spec", "UserDiffers", _set("spec.dump", "process", "user", "uid", to=4711))
add("a terminal in the spec", "TtyDiffers", _set("spec.dump", "process", "terminal", to=True))
add(
    "a deleted file upwards",
    "MetadataMalformed",
    lambda forgery: forgery.files.__setitem__("deleted.files", b'["/../../etc/passwd"]'),
)
add(
    "deleted files that are no list",
    "MetadataMalformed",
    lambda forgery: forgery.files.__setitem__("deleted.files", b'{"a":1}'),
)
add(
    "the root itself deleted", "MetadataMalformed", lambda forgery: forgery.files.__setitem__("deleted.files", b'["/"]')
)


def _mounts(change: Any) -> Change:
    return lambda forgery: forgery.json("spec.dump", lambda spec: change(spec["mounts"]))


add(
    "a mount that the pod does not have",
    "MountMissing",
    _mounts(
        lambda mounts: mounts.append(
            {"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "rw"]}
        )
    ),
)
add(
    "a mount fewer than the pod has",
    "MountUnexpected",
    _mounts(
        lambda mounts: mounts.__setitem__(slice(None), [each for each in mounts if each["destination"] != "/dev/shm"])
    ),
)
add(
    "/sys writable in the spec",
    "PrivilegedDiffers",
    _mounts(lambda mounts: [each["options"].remove("ro") for each in mounts if each["destination"] == "/sys"]),
)


# ---- what an archive may say and nobody may follow: honest ones say it too, so it is no reason to refuse ----


def _noted(notes: dict[str, str]) -> Change:
    def change(forgery: Forgery) -> None:
        for name in ("spec.dump", "status.dump"):
            forgery.json(name, lambda document: document.setdefault("annotations", {}).update(notes))

    return change


@twin(
    "devices of CDI that nobody injects (CVE-2026-53492)",
    proof="test ! -e /dev/kmsg",
    unheard=("cdi.k8s.io/", "vendor.example", "nvidia.com"),
)
def _cdi(forgery: Forgery) -> None:
    _noted({"cdi.k8s.io/evil": "vendor.example/device=all", "cdi.k8s.io/more": "nvidia.com/gpu=all"})(forgery)


@twin("hooks that nobody runs", proof="test ! -e /etc/hooked", unheard=('"hooks"', "hooked"))
def _hooks(forgery: Forgery) -> None:
    hook = [{"path": "/bin/sh", "args": ["sh", "-c", "touch /etc/hooked"]}]
    for kind in ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"):
        _set("spec.dump", "hooks", kind, to=hook)(forgery)


@twin("image names that nobody gives to an image (CVE-2026-50195)", unheard=("pause:evil",))
def _names(forgery: Forgery) -> None:
    forgery.json("config.dump", lambda config: config.update(rootfsImage="pause:evil", rootfsImageName="pause:evil"))
    _noted({"io.kubernetes.cri.image-name": "pause:evil", "org.opencontainers.image.ref.name": "pause:evil"})(forgery)


@twin("annotations and environment that nobody follows", proof='test -z "$EVIL"', unheard=("evil.conf", "EVIL=1"))
def _followed(forgery: Forgery) -> None:
    _noted(
        {
            "org.criu.config": "/etc/evil.conf",
            "io.kubernetes.cri.container-type": "sandbox",
            "nri-restore/criu": "file-locks",
        }
    )(forgery)
    forgery.json("spec.dump", lambda spec: spec["process"]["env"].append("EVIL=1"))
