"""Images of a dump that CRIU would act on beyond the container, or that nobody has looked at.

CRIU loads AppArmor profiles into the node's kernel (criu/apparmor.c), registers binary formats (filesystems.c), hands
firewall rules and routes to programs of the node (net.c), and plugins read whatever they like. No dump of a pod's
container has any of them: its network namespace is the pod's, made before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from shared.criu.dump import Dump
from shared.criu.magic import MAGIC
from shared.errors import Refused

_ACTED_ON: Final = frozenset({
    "apparmor.img", "autofs-%.img", "binfmt-misc.img", "ext-files.img", "netdev-%.img", "tunfile.img", "userns-%.img",
})  # fmt: skip
_WITHOUT_MAGIC: Final = re.compile(
    r"pages-\d+\.img|tmpfs-(dev-)?\d+\.tar\.gz\.img|descriptors\.json|stats-(dump|restore)|dump\.log|restore\.log"
    r"|cgroup\.img|irmap-cache\.img|irmap-cache"
)
_NUMBER: Final = re.compile(r"-[0-9a-f]+(?=\.img$)")
_TMPFS: Final = re.compile(r"tmpfs-(dev-)?(\d+)\.tar\.gz\.img")


def image_refusals(dump: Dump) -> Iterator[Refused]:
    """ImageForeign, naming the image."""
    for name in dump.images:
        pattern = name if name in MAGIC else _NUMBER.sub("-%", name)
        known = (pattern in MAGIC and pattern not in _ACTED_ON) or _WITHOUT_MAGIC.fullmatch(name)
        if not known or not _has_a_mount(name, dump):
            yield Refused(
                "ImageForeign",
                f"the checkpoint has the CRIU image {name}, which no container of a pod has or which would change the "
                "node; take a new checkpoint through the container runtime",
            )
    if dump.inventory.plugins:
        plugins = ", ".join(dump.inventory.plugins)[:120]
        yield Refused(
            "ImageForeign",
            f"the checkpoint was made with plugins of CRIU ({plugins}), which decide by themselves what they restore; "
            "take a new checkpoint without them",
        )


def _has_a_mount(name: str, dump: Dump) -> bool:
    """A tmpfs' content belongs to a mount of the dump, or CRIU would not read it."""
    if not (found := _TMPFS.fullmatch(name)):
        return True
    number = int(found[2])
    return any((mount.device if found[1] else mount.id) == number for mount in dump.mounts)
