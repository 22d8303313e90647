"""Why CRIU could not dump: the first error in its log on the node, which the kubelet's answer only names.

Sources: CRIU criu/log.c (``(00.039675) Error (criu/sk-inet.c:200): inet: Connected TCP socket, …``); runc
libcontainer/criu_linux.go and crun src/libcrun/criu.c (the node's own options).
"""

from __future__ import annotations

import posixpath
import re
from typing import TYPE_CHECKING, Final

from kubectl_restore.kube.exec import output
from kubectl_restore.kube.transfer_pod import CONTAINER, MOUNTED, transfer_pod
from shared.printable import safe

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection

_ERROR: Final = re.compile(r"^\(\d+\.\d+\) +(?:\d+: )?Error \([^)]*\): (?P<text>.+)$", re.MULTILINE)
_TELLS_NOTHING: Final = ("rlimit: Can't setup RLIMIT_NOFILE", "Dumping FAILED", "Dump files (pid:")
"""The first stands in every log of a CRIU without CAP_SYS_RESOURCE; the others follow what is meant."""
_OPTION: Final = re.compile(r"--(?P<name>[a-z][a-z-]+)")
_READ_BYTES: Final = 1 << 18
_SHOWN: Final = 300


def read_reason(connection: Connection, node: str, log: str, *, image: str, namespace: str) -> str:
    """One sentence, with the option that CRIU proposes; empty when the log holds none.

    Raises what ``transfer_pod`` and ``output`` raise.
    """
    directory, name = posixpath.split(log)
    if posixpath.normpath(log) != log or directory == "/":
        return ""
    with transfer_pod(connection, node, directory, image=image, namespace=namespace) as pod:
        command = ["tail", "-c", str(_READ_BYTES), f"{MOUNTED}/{name}"]
        return reason_in(output(connection, pod.namespace, pod.name, CONTAINER, command))


def reason_in(log: str) -> str:
    for found in _ERROR.finditer(log):
        # File names in it are the container's own choice.
        text = safe(found["text"].strip())
        if text.startswith(_TELLS_NOTHING):
            continue
        if option := _OPTION.search(text):
            where = "/etc/criu/runc.conf on the node (crun: crun.conf)"
            return f"{text[:_SHOWN]} (an option that an administrator sets in {where}: a line '{option['name']}')"
        return text[:_SHOWN]
    return ""
