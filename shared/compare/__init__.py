"""What CRIU would restore against what the live pod asks for. Nothing here changes anything; every rule may refuse.

``runc restore`` runs no runc init: user, capabilities, seccomp, no_new_privs, terminal, mounts and root flags of the
restored processes are those in the images, whatever the pod's security context says (runc libcontainer/criu_linux.go).
So each must be what the live OCI spec gives, or less. The archive's own spec.dump is only good for explaining a
difference early and well: what is restored are CRIU's images, so those are what the rules of ``check_dump`` look at.
"""

from __future__ import annotations

from collections.abc import Sequence

from shared.compare.credentials import check_credentials
from shared.compare.mount_tree import check_mount_tree
from shared.compare.namespaces import check_namespaces
from shared.compare.open_files import check_device_nodes, check_open_files
from shared.compare.pod_identity import PodIdentity, pod_identity
from shared.compare.settings import check_command, check_settings
from shared.criu.dump import Dump
from shared.criu.tmpfs import DeviceNode
from shared.spec import RuntimeSpec

__all__ = ["PodIdentity", "check_command", "check_dump", "check_settings", "pod_identity"]


def check_dump(
    dump: Dump, dumped: RuntimeSpec, live: RuntimeSpec, identity: PodIdentity, device_nodes: Sequence[DeviceNode] = ()
) -> None:
    """Everything CRIU would restore against the live spec; raises the Refused of the first rule that it breaks."""
    check_namespaces(dump, live)
    check_credentials(dump, dumped, live, identity)
    check_mount_tree(dump, live)
    check_open_files(dump, live)
    check_device_nodes(dump, device_nodes, live)
