"""A node with cgroups of version 2 alone, as current distributions do; the host may keep controllers in version 1."""

from __future__ import annotations

from tests.e2e.node import containerd_config as config
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.systemd_node import RUNC, WITHOUT_WEIGHTS


class Cgroup2Node(Node):
    """containerd 2.1, which gives containers cgroup namespaces there; the handler nri-restore runs ``RUNC``."""

    def __init__(self, network: Network, hostname: str) -> None:
        super().__init__("containerd-2.1", network, hostname)
        self.files[RUNC] = WITHOUT_WEIGHTS
        self.files["/etc/nri-restore/restore-runc.conf"] = f"runtime={RUNC}\n"
        runc = f'    [plugins."{config.CRI[self.flavour]}".containerd.runtimes.runc'
        options = f'{runc}.options]\n      BinaryName = "{RUNC}"\n'
        self.files[config.MAIN] = self.files[config.MAIN].replace(f"{runc}]", f"{options}{runc}]")

    @property
    def only_cgroup2(self) -> bool:
        return True

    def start_containerd(self) -> None:
        self.sh(f"chmod 755 {RUNC}")
        super().start_containerd()
