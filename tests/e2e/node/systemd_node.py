"""A node as an administrator has it: systemd is PID 1 and runs containerd, and nothing of nri-restore is there."""

from __future__ import annotations

import secrets
from typing import Final

from tests.e2e.node import cgroups
from tests.e2e.node import containerd_config as config
from tests.e2e.node.network import Network
from tests.e2e.node.node import DAEMON_CONFIGURATION, Node
from tests.e2e.node.roots import Flavour
from tests.e2e.node.waiting import wait_for

_BOOTED: Final = {"running", "degraded"}
"""systemctl(1), is-system-running; degraded: modules cannot be loaded here."""

RUNC: Final = "/usr/local/bin/runc-without-weights"
WITHOUT_WEIGHTS: Final = """\
#!/bin/sh
# The host has bound all controllers to version 1: cgroups of version 2 have no cpu.weight, which runc insists on.
for word; do
	[ "$last" = --bundle ] && sed -i 's/"cpu":{[^}]*}/"cpu":{}/' "$word/config.json"
	last=$word
done
exec runc "$@"
"""


class SystemdNode(Node):
    """NRI is off and the checkout that other test nodes see is hidden."""

    def __init__(self, flavour: Flavour, network: Network, hostname: str) -> None:
        super().__init__(flavour, network, hostname)
        self.systemd = True
        self.files["/etc/machine-id"] = f"{secrets.token_hex(16)}\n"
        del self.files[DAEMON_CONFIGURATION]
        self.files[config.MAIN] = config.unconfigured(flavour)
        if self.only_cgroup2 and any(each.options for each in cgroups.hierarchies()):
            self.files[RUNC] = WITHOUT_WEIGHTS
            runc = f'    [plugins."{config.CRI[flavour]}".containerd.runtimes.runc'
            options = f'{runc}.options]\n      BinaryName = "{RUNC}"\n'
            self.files[config.MAIN] = self.files[config.MAIN].replace(f"{runc}]", f"{options}{runc}]")

    def start(self) -> None:
        super().start()
        # A machine that runs starts services; the roots were built without any.
        self.sh(f"rm {config.WRAPPER} /usr/sbin/policy-rc.d; rmdir /etc/nri-restore")

    def start_containerd(self) -> None:
        wait_for(lambda: self.systemctl("is-system-running", check=False) in _BOOTED, "systemd to have booted")
        self.sh(f"[ ! -e {RUNC} ] || chmod 755 {RUNC}")
        self._wait_for_cri(lambda: self.systemctl("is-active", "containerd", check=False) == "active")

    def stop_containerd(self) -> None:
        self.systemctl("stop", "containerd")

    def systemctl(self, *words: str, check: bool = True) -> str:
        """What ``systemctl`` printed, without the end of the line; raises CommandFailed."""
        return self.run(["systemctl", "--no-pager", *words], check=check, timeout_s=300).stdout.strip()
