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


@twin("CDI devices, hooks, annotations and image names that nobody follows", proof="test ! -e /tmp/hooked")
def _inert(forgery: Forgery) -> None:
    """What an archive may say and nobody may follow: CDI devices, hooks, annotations, image names, environment."""
    notes = {
        "cdi.k8s.io/evil": "vendor.example/device=all",
        "org.criu.config": "/etc/evil.conf",
        "io.kubernetes.cri.container-type": "sandbox",
        "nri-restore/criu": "file-locks",
    }
    _set("spec.dump", "hooks", to={"prestart": [{"path": "/bin/sh", "args": ["sh", "-c", "touch /tmp/hooked"]}]})(
        forgery
    )
    forgery.json("spec.dump", lambda spec: spec.setdefault("annotations", {}).update(notes))
    forgery.json("status.dump", lambda status: status.setdefault("annotations", {}).update(notes))
    forgery.json("config.dump", lambda config: config.update(rootfsImage="pause:evil", rootfsImageName="pause:evil"))
