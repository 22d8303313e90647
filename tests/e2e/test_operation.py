"""What whoever runs a node sees of its restores: metrics, and the programs that list and show them."""

from __future__ import annotations

import http.client
import re
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.e2e.faults import counts_on, criu_hook, fresh_image, refused, restoring_pod
from tests.e2e.node.kubelet import Kubelet
from tests.e2e.node.node import PYTHON_PATH, Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import KEEPS, Taken, with_daemon


class Scraped(http.client.HTTPConnection):
    """A connection to the unix socket of a node's metrics."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=300)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


def metrics(node: Node) -> dict[tuple[str, ...], float]:
    """Values by name and label values."""
    connection = Scraped(node.path("/run/nri-restore/metrics.sock"))
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    return {
        (each.name.removeprefix("nri_restore_"), *each.labels.values()): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def results(node: Node) -> dict[tuple[str, ...], float]:
    return {key[1:]: value for key, value in metrics(node).items() if key[0] == "restores_total"}


@pytest.fixture
def kubelet(kubelet_of: Callable[[Node], Kubelet], node_17: Node) -> Kubelet:
    return kubelet_of(node_17)


def test_restores_are_counted_listed_and_shown(
    node_17: Node, kubelet: Kubelet, registry: Registry, own_checkpoint: Taken
) -> None:
    node = node_17
    if node.daemon is not None and node.daemon.running:
        node.stop_daemon()
    with_daemon(node, KEEPS)
    image = fresh_image(registry, own_checkpoint)
    good = restoring_pod(kubelet, own_checkpoint, image, "good").run(own_checkpoint.spec)
    counts_on(good)
    with criu_hook(node, '[ "$CRTOOLS_SCRIPT_ACTION" != post-restore ]'):
        failing = restoring_pod(kubelet, own_checkpoint, image, "failing").create(own_checkpoint.spec)
        assert "CriuFailed" in refused(failing.start)
    unwanted = restoring_pod(kubelet, own_checkpoint, image, "unwanted", annotations={"nri-restore/tcp": "maybe"})
    assert "AnnotationInvalid" in refused(lambda: unwanted.create(own_checkpoint.spec))

    wanted = {("restored", ""): 1, ("failed", "CriuFailed"): 1, ("refused", "AnnotationInvalid"): 1}
    wait_for(lambda: results(node) == wanted, "the restores to be counted")
    found = metrics(node)
    assert found["phase_duration_seconds_count", "restore"] == 1
    assert found["phase_duration_seconds_count", "view"] == 2
    assert found["nri_connected",] == found["nri_connections_total",] == 1

    def nri_restore(*words: str) -> str:
        command = ["python3", "-m", "nri_plugin.cli", *words]
        return node.run(command, env={"PYTHONPATH": PYTHON_PATH, "PYTHONDONTWRITEBYTECODE": "1"}).stdout

    listed = {line.split()[1]: line.split()[3:5] for line in nri_restore("list").splitlines()}
    assert listed == {
        "POD": ["STATE", "REASON"],
        "default/good": ["restored", "-"],
        "default/failing": ["failed", "CriuFailed"],
    }
    kubelet.remove_all()
    wait_for(lambda: nri_restore("list") == "", "the plans to be removed")
    said = nri_restore("show", failing.id[:12])
    assert "State:     failed, the container is gone\nReason:    CriuFailed: " in said
    assert re.search(r"Log: +/var/log/nri-restore/.*/restore.log, its end:\n.*Error \(criu/", said, re.DOTALL)
