"""What would be an attack in another pod, restored by the pod that grants it."""

from __future__ import annotations

import stat
import tarfile

from shared.criu.capabilities import NAMES
from tests.hostile.attack import TWINS, Twin, twin
from tests.hostile.attacks.credentials import raised
from tests.hostile.forgery import Forgery
from tests.support.checkpoints import member

for _name in ("CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_NICE", "CAP_IPC_LOCK"):
    TWINS.append(
        Twin(
            f"{_name} where the pod adds it",
            raised(("permitted", "effective", "bounding"), NAMES.index(_name)),
            pod={"add_capabilities": (_name.removeprefix("CAP_"),)},
        )
    )


@twin("a setuid program of root in a tmpfs of a container of root")
def _setuid(forgery: Forgery) -> None:
    forgery.tmpfs("/dev", [member("./su", b"x", mode=0o4755)])


@twin("a device that the runtime gives every container, in a tmpfs")
def _null(forgery: Forgery) -> None:
    forgery.tmpfs("/dev", [member("./nothing", kind=tarfile.CHRTYPE, devmajor=1, devminor=3)])


@twin("a device that the runtime gives every container, open")
def _open_null(forgery: Forgery) -> None:
    forgery.open_path("/dev/null", stat.S_IFCHR | 0o666, mnt_id=forgery.mount("/dev").mnt_id)


@twin("what the user of the pod owns, in a tmpfs and in the rootfs diff", "user")
def _own(forgery: Forgery) -> None:
    forgery.tmpfs("/dev", [member("./mine", b"x", mode=0o755, uid=1000, gid=1000)])
    forgery.diff([member("tmp/mine", b"x", mode=0o755, uid=1000, gid=1000)])
