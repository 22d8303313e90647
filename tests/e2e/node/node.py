"""A Kubernetes node without a kubelet: a machine with containerd, CNI pod network, NRI, and the nri-restore daemon."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import grpc

from shared.contract import HANDLER
from shared.errors import Unavailable
from tests.e2e.node import containerd_config as config
from tests.e2e.node.cri import Cri, CriError
from tests.e2e.node.image import OciImage, pause_image
from tests.e2e.node.inventory import Inventory, take_inventory
from tests.e2e.node.machine import Machine
from tests.e2e.node.network import Network
from tests.e2e.node.program import Program
from tests.e2e.node.registry import PORT, Registry
from tests.e2e.node.roots import Flavour, base_root
from tests.e2e.node.waiting import LIMIT_S, wait_for

CONTAINERD_SOCKET: Final = "/run/containerd/containerd.sock"
DAEMON_CONFIGURATION: Final = "/etc/nri-restore/config.toml"
CONTAINERD_LOG: Final = "/var/log/containerd.log"
DAEMON_LOG: Final = "/var/log/nri-restore-daemon.log"
PYTHON_PATH: Final = "/opt/nri-restore/dependencies:/opt/nri-restore/checkout"


class Node(Machine):
    """``with Node("containerd-1.7", network) as node: node.cri.version()``; containerd runs, the daemon does not."""

    def __init__(self, flavour: Flavour, network: Network, hostname: str = "") -> None:
        super().__init__(flavour, network, hostname or f"node-{flavour.replace('.', '-')}")
        self.files["/etc/containerd/config.toml"] = config.configuration(flavour)
        self.files[f"{config.CNI_CONFIGURATION}/10-pods.conflist"] = config.CNI_NETWORK
        self.files[DAEMON_CONFIGURATION] = ""
        self.containerd: Program | None = None
        self.daemon: Program | None = None

    def start(self) -> None:
        super().start()
        try:
            for folder in ("/var/log/pods", "/var/lib/kubelet/pods"):
                self.path(folder).mkdir(parents=True)
            self.path(config.WRAPPER).symlink_to("/opt/nri-restore/checkout/nri_plugin/runtime/restore-runc")
            self.sh("sysctl -q -w net.ipv4.ip_forward=1")
            self.start_containerd()
            self.import_image(pause_image(base_root(self.flavour)), config.PAUSE)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        if self.init:
            self.cri.close()
        super().stop()
        self.containerd = self.daemon = None

    # ---- containerd ----

    @property
    def cri(self) -> Cri:
        """The runtime's CRI; one channel, kept over restarts of containerd."""
        if self._cri is None:
            self._cri = Cri(self.path(CONTAINERD_SOCKET))
        return self._cri

    _cri: Cri | None = None

    def start_containerd(self) -> None:
        """Starts containerd and waits until the CRI is up and its pod network is known.

        Raises Unavailable("ContainerdDidNotStart") with the end of its log.
        """
        program = self.containerd = self.spawn(["containerd"], CONTAINERD_LOG)
        self._wait_for_cri(lambda: program.running)

    def _wait_for_cri(self, alive: Callable[[], bool]) -> None:
        deadline = time.monotonic() + LIMIT_S
        while True:
            problem = "no answer"
            needed = {"RuntimeReady", "NetworkReady"}
            try:
                conditions = self.cri.status(deadline_s=2).status.conditions
                problem = ", ".join(
                    f"{each.type}: {each.message}" for each in conditions if each.type in needed and not each.status
                )
                if not problem:
                    return
            except CriError as error:
                if error.code not in {
                    grpc.StatusCode.UNAVAILABLE,
                    grpc.StatusCode.DEADLINE_EXCEEDED,
                    grpc.StatusCode.UNKNOWN,
                }:
                    raise
            if time.monotonic() > deadline or not alive():
                log = self.containerd.output()[-3000:] if self.containerd else "see its journal"
                raise Unavailable("ContainerdDidNotStart", f"containerd is not ready ({problem}): {log}")
            time.sleep(0.02)

    def stop_containerd(self) -> None:
        """SIGTERM; pods go on under their shims."""
        assert self.containerd
        self.containerd.stop()

    def kill_containerd(self) -> None:
        assert self.containerd
        self.containerd.kill()

    def restart_containerd(self) -> None:
        self.stop_containerd()
        self.start_containerd()

    def ctr(self, *words: str, timeout_s: float = 60) -> str:
        """Output of ``ctr`` in the CRI's namespace."""
        return self.run(["ctr", "--namespace", "k8s.io", *words], timeout_s=timeout_s).stdout

    # ---- images ----

    def import_image(self, image: OciImage, name: str) -> str:
        """Puts an image into the node's store and waits until the CRI knows it; returns ``name``."""
        self.run(["ctr", "--namespace", "k8s.io", "images", "import", "-"], stdin=image.archive(name), timeout_s=120)
        wait_for(lambda: self.cri.image_status(name) is not None, f"the CRI to know {name}")
        return name

    def trust(self, registry: Registry, *names: str) -> None:
        """Lets the node pull from ``registry`` over plain HTTP, also under other ``names`` (``localhost:5000``)."""
        for name in (registry.address, *names):
            folder = self.path(f"{config.CERTIFICATES}/{name}")
            folder.mkdir(parents=True, exist_ok=True)
            address = f"http://{registry.address}"
            (folder / "hosts.toml").write_text(
                f'server = "{address}"\n[host."{address}"]\n  capabilities = ["pull", "resolve", "push"]\n'
            )

    def relay(self, registry: Registry) -> Program:
        """Makes the registry answer on the node's localhost:5000, for clients that cannot be told to do without TLS."""
        relay = "/opt/nri-restore/checkout/tests/e2e/node/relay.py"
        program = self.spawn(["/usr/bin/python3", relay, str(PORT), registry.address], "/var/log/relay.log")
        listening = f"127.0.0.1:{PORT}"
        wait_for(lambda: listening in self.run(["ss", "-Hltn"]).stdout, f"the relay on {listening}")
        return program

    # ---- the daemon ----

    def start_daemon(self, configuration: str | None = None, *, ready: Callable[[], bool] | None = None) -> Program:
        """Starts ``nri-restore run``; returns once NRI knows it, or once ``ready()`` says so.

        Raises Unavailable("DaemonDidNotStart") with the end of its log.
        """
        if configuration is not None:
            self.path(DAEMON_CONFIGURATION).write_text(configuration)
        before = len(self._registrations())
        self.daemon = daemon = self.spawn(
            ["/usr/bin/python3", "-m", "nri_plugin.cli", "run"],
            DAEMON_LOG,
            # The checkout is read-only; compiled as an installed package is, the daemon starts sooner and is smaller.
            env={"PYTHONPATH": PYTHON_PATH, "PYTHONUNBUFFERED": "1", "PYTHONPYCACHEPREFIX": "/var/cache/python"},
        )
        arrived = ready or (lambda: len(self._registrations()) > before)
        deadline = time.monotonic() + LIMIT_S
        while not arrived():
            if not daemon.running or time.monotonic() > deadline:
                raise Unavailable("DaemonDidNotStart", f"the daemon is not up: {daemon.output()[-3000:]}")
            time.sleep(0.02)
        return daemon

    def _registrations(self) -> list[str]:
        # `plugin "NN-name" connected` (NRI 0.6), `… connected and synchronized` (0.8): pkg/adaptation/adaptation.go.
        log = self.path(CONTAINERD_LOG).read_text(errors="replace")
        return [line for line in log.splitlines() if HANDLER in line and "connected" in line]

    def stop_daemon(self) -> None:
        assert self.daemon
        self.daemon.stop()

    # ---- looking ----

    def inventory(self) -> Inventory:
        """Everything a test could leave behind on this node."""
        return take_inventory(self)
