"""A node whose daemon has credentials for the Kubernetes API, and a registry that wants a login."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from shared.contract import HANDLER
from tests.e2e.cluster import RealNodes
from tests.e2e.node.network import Network
from tests.e2e.node.node import Node
from tests.e2e.node.program import Program
from tests.e2e.node.registry import Registry
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import KEEPS_NOTHING, with_daemon
from tests.support.kube_api import KubeApi
from tests.support.kube_objects import resource

CA = "/opt/nri-restore/checkout/tests/data/tls/ca.pem"
CLUSTER = "[cluster]\nkubeconfig = '/etc/nri-restore/kubeconfig'\nnode = 'old'\n"
"""Configuration that lets the daemon ask the stub API server."""
PRIVATE_PORT = 5001
LOGIN = ("robot", "s3cret")
HTPASSWD = "robot:$2b$04$8xulP.TpVSLj2aWPuxf.6eiYqC7MRjdkVoUSBYz8k6kpSqsmeR/Si"
"""The same, as bcrypt: the only form docker-registry reads."""
PRIVATE = f"""\
version: 0.1
storage:
  filesystem: {{rootdirectory: /var/lib/registry}}
http: {{addr: ':{PRIVATE_PORT}'}}
auth: {{htpasswd: {{realm: private, path: /etc/htpasswd}}}}
"""


@dataclass(frozen=True)
class Joined:
    """A node whose daemon knows the API server."""

    api: KubeApi
    node: Node

    def events(self, pod: str) -> list[tuple[str, str]]:
        """What our daemon posted: reason and message."""
        kind = resource("events")
        assert kind
        return [
            (each["reason"], each["message"])
            for each in self.api.objects.find(kind)
            if each["involvedObject"]["name"] == pod and each.get("source", {}).get("component") == "nri-restore"
        ]

    def run(self, name: str, image: str, *, annotations: dict[str, str] | None = None, **spec: Any) -> None:
        container = {"name": "counter", "image": image}
        metadata = {"name": name, "annotations": annotations or {}}
        wanted = {"nodeName": "old", "runtimeClassName": HANDLER, "containers": [container], **spec}
        self.api.run_pod({"metadata": metadata, "spec": wanted})


@contextmanager
def joined_node(network: Network, node: Node) -> Iterator[Joined]:
    """The node is called ``old`` in the cluster."""
    with KubeApi(RealNodes({"old": node}), address=network.host) as api:
        api.create("RuntimeClass", HANDLER, handler=HANDLER)
        # The stub's certificate is for 127.0.0.1 only.
        port = api.url.rpartition(":")[2]
        relay = "/opt/nri-restore/checkout/tests/e2e/node/relay.py"
        running = node.spawn(["/usr/bin/python3", relay, port, f"{network.host}:{port}"], "/var/log/relay-api.log")
        wait_for(lambda: f"127.0.0.1:{port}" in node.run(["ss", "-Hltn"]).stdout, "the relay to the API server")
        document = api.kubeconfig()
        document["clusters"][0]["cluster"] = {"server": f"https://127.0.0.1:{port}", "certificate-authority": CA}
        kubeconfig = node.path("/etc/nri-restore/kubeconfig")
        kubeconfig.write_text(json.dumps(document))
        if node.daemon is not None and node.daemon.running:
            node.stop_daemon()
        with_daemon(node, KEEPS_NOTHING + CLUSTER)
        yield Joined(api, node)
        node.stop_daemon()
        kubeconfig.unlink()
        running.stop()


@dataclass
class Private:
    """A registry with the other's images, for who can log in."""

    registry: Registry
    server: Program | None = None

    @property
    def address(self) -> str:
        """``HOST:PORT``."""
        return f"{self.registry.machine.address}:{PRIVATE_PORT}"

    def start(self) -> None:
        machine = self.registry.machine
        self.server = machine.spawn(["docker-registry", "serve", "/etc/private.yml"], "/var/log/private.log")
        wait_for(lambda: f":{PRIVATE_PORT}" in machine.run(["ss", "-Hltn"]).stdout, "the private registry")

    def stop(self) -> None:
        if self.server:
            self.server.stop()
        self.server = None


@contextmanager
def private_registry(registry: Registry, *nodes: Node) -> Iterator[Private]:
    """Reachable from these nodes."""
    registry.machine.path("/etc/private.yml").write_text(PRIVATE)
    registry.machine.path("/etc/htpasswd").write_text(f"{HTPASSWD}\n")
    private = Private(registry)
    private.start()
    for node in nodes:
        folder = node.path(f"/etc/containerd/certs.d/{private.address}")
        folder.mkdir(parents=True, exist_ok=True)
        address = f"http://{private.address}"
        host = f'[host."{address}"]\n  capabilities = ["pull", "resolve"]\n'
        (folder / "hosts.toml").write_text(f'server = "{address}"\n{host}')
    try:
        yield private
    finally:
        private.stop()


def pull_secret(address: str) -> str:
    user, password = LOGIN
    document = {"auths": {address: {"username": user, "password": password}}}
    return base64.b64encode(json.dumps(document).encode()).decode()
