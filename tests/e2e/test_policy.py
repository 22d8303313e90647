"""What the node's administrator allows: by namespace, registry, size and signature, changed while the daemon runs."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import pytest

from shared.contract import TRIGGER_CONTAINERD
from shared.run import run
from tests.e2e.cosign import Cosign
from tests.e2e.faults import worker_of
from tests.e2e.node.containerd_config import CERTIFICATES
from tests.e2e.node.counter import printed
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import OciImage, image_of
from tests.e2e.node.kubelet import RUNNING, Container, Kubelet
from tests.e2e.node.node import DAEMON_CONFIGURATION, DAEMON_LOG, Node
from tests.e2e.node.places import CHECKOUT
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import FLAVOURS
from tests.e2e.node.specs import PodSpec
from tests.e2e.node.waiting import wait_for
from tests.e2e.restoring import WAITS, Taken, checkpointed, have, local, with_daemon
from tests.support.service_account import Issuer

NUMBERS = count()
ACCOUNT_KEYS = "/etc/nri-restore/service-accounts.jwks"
KEY = "/etc/nri-restore/cosign.pub"
SIGNED = f'[policy]\nsignature_keys = ["{KEY}"]\n'
_CLI = "from kubectl_restore.cli import main; main()"


@dataclass
class Bench:
    """One node whose daemon stays up while its configuration changes."""

    node: Node
    kubelet: Kubelet
    registry: Registry
    taken: Taken

    def says(self, text: str) -> int:
        return self.node.path(DAEMON_LOG).read_text().count(text)

    def reload(self, configuration: str, *, says: str = "was read again") -> None:
        """As ``systemctl reload`` does it; ``says``: what the daemon's log then has once more."""
        before = self.says(says)
        self.node.path(DAEMON_CONFIGURATION).write_text(configuration)
        assert self.node.daemon
        self.node.daemon.signal(signal.SIGHUP)
        wait_for(lambda: self.says(says) > before, f"the daemon to say: {says}")

    def image(self) -> tuple[str, OciImage]:
        """Repository of a checkpoint image in the registry that is like no other, and the image."""
        # Another config as well: to the CRI, images of one config are one image of several names.
        labels = {TRIGGER_CONTAINERD: "counter", "n": str(next(NUMBERS))}
        command = self.taken.json("spec.dump")["process"]["args"]
        image = image_of([self.taken.archive.read_bytes()], {"Cmd": command, "Labels": labels})
        name = f"policy/image-{next(NUMBERS)}"
        self.registry.push(image, f"{name}:1")
        return name, image

    def create(self, name: str, namespace: str = "default") -> Container:
        """A container whose image is the checkpoint; raises CriError."""
        reference = local(f"{name}:1")
        have(self.node, reference)
        pod = self.kubelet.run_pod(self.taken.pod(f"policy-{next(NUMBERS)}", namespace=namespace))
        return pod.create(self.taken.restored(reference))

    def restores(self, name: str, namespace: str = "default") -> None:
        container = self.create(name, namespace)
        container.start()
        container.wait_for(lambda each: len(printed(each)) > len(self.taken.logged) + 1, "new numbers")

    def refused(self, name: str, namespace: str = "default") -> str:
        """What CreateContainer says; or StartContainer, as of all that is not a quick check, or was not quick."""
        with pytest.raises(CriError) as error:
            self.create(name, namespace).start()
        return str(error.value)


@pytest.fixture(scope="module")
def on_17(node_17: Node, registry: Registry, own_checkpoint: Taken) -> Bench:
    with_daemon(node_17)
    return Bench(node_17, Kubelet(node_17), registry, own_checkpoint)


@pytest.fixture
def bench(on_17: Bench) -> Iterator[Bench]:
    with_daemon(on_17.node)
    yield on_17
    on_17.kubelet.remove_all()


@pytest.fixture(scope="module", params=FLAVOURS)
def cosign(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Cosign:
    return Cosign(request.param, tmp_path_factory.mktemp("cosign"))


@pytest.fixture
def key(bench: Bench, cosign: Cosign) -> Path:
    """A new private key, whose public half the node trusts."""
    key = cosign.key(f"node-{next(NUMBERS)}")
    bench.node.path(KEY).write_bytes(key.with_suffix(".pub").read_bytes())
    return key


def sign(bench: Bench, cosign: Cosign, key: Path, name: str, image: OciImage) -> None:
    """By hand, as ``kubectl restore build`` would."""
    offline = ["--tlog-upload=false"]
    if cosign.flavour == "containerd-2.1":
        config = cosign.folder / "no-services.json"
        config.write_text(run(["cosign", "signing-config", "create"], timeout_s=300, env=cosign.environment).stdout)
        offline = ["--signing-config", str(config)]
    reference = f"{bench.registry.address}/{name}@{image.digest}"
    words = ["cosign", "sign", "--yes", "--allow-http-registry", "--key", key, *offline, reference]
    run(words, timeout_s=120, env=cosign.environment)


def test_namespaces_change_while_the_daemon_runs_and_a_bad_file_changes_nothing(bench: Bench) -> None:
    name, _ = bench.image()
    daemon = bench.node.daemon
    bench.reload('[policy]\nnamespaces = ["batch-*"]\n')
    assert "NamespaceNotAllowed: pods of the namespace default may not restore" in bench.refused(name)
    bench.restores(name, "batch-1")
    bench.reload('[policy]\nnamespaces = "default"\n', says="policy.namespaces must be a list; the configuration stays")
    assert "NamespaceNotAllowed" in bench.refused(name)
    # A worker that begins anew goes by what holds, not by the file.
    assert daemon
    gone = worker_of(daemon)
    os.kill(gone, signal.SIGKILL)
    wait_for(lambda: worker_of(daemon) != gone, "another worker")
    wait_for(lambda: "NamespaceNotAllowed" in bench.refused(name), "the refusal")
    bench.reload('[policy]\nnamespaces = ["default"]\n[paths]\nplans = "/elsewhere"\n', says="once nri-restore is rest")
    bench.restores(name)
    assert "NamespaceNotAllowed" in bench.refused(name, "batch-1")
    assert bench.node.daemon is daemon
    assert daemon.running


def test_registry_decides_before_anything_is_pulled(
    node_21: Node, kubelet_of: Callable[[Node], Kubelet], registry: Registry, own_checkpoint: Taken
) -> None:
    with_daemon(node_21)
    bench = Bench(node_21, kubelet_of(node_21), registry, own_checkpoint)
    name, _ = bench.image()
    reference = local(f"{name}:1")
    have(node_21, own_checkpoint.base)
    bench.reload(WAITS + '[policy]\nregistries = ["registry.example", "localhost:5000/other/*"]\n')
    pod = bench.kubelet.run_pod(own_checkpoint.annotated("elsewhere", reference))
    with pytest.raises(CriError, match=f'RegistryNotAllowed: the checkpoint image "{reference}"') as refused:
        pod.create(own_checkpoint.spec)
    assert refused.value.method == "CreateContainer"
    assert node_21.cri.image_status(reference) is None
    bench.reload('[policy]\nregistries = ["registry.example", "localhost:5000/policy/*"]\n')
    container = bench.kubelet.run_pod(own_checkpoint.annotated("here", reference)).run(own_checkpoint.spec)
    assert container.state == RUNNING


def test_base_image_of_an_archive_must_be_from_an_allowed_place_too(bench: Bench) -> None:
    name, _ = bench.image()
    bench.reload('[policy]\nregistries = ["localhost:5000/policy/*"]\n')
    assert "RegistryNotAllowed: the checkpoint's base image \"localhost:5000/own" in bench.refused(name)
    bench.reload('[policy]\nregistries = ["localhost:5000/policy/*", "localhost:5000/own"]\n')
    bench.restores(name)


def test_base_image_on_the_node_is_asked_for_where_it_has_to_be_pulled(bench: Bench) -> None:
    (first, _), (second, _) = bench.image(), bench.image()
    for name in (first, second):
        have(bench.node, local(f"{name}:1"))
    bench.reload('[policy]\nbase_pull = "Always"\n')
    bench.restores(first)
    bench.registry.pause_service()
    try:
        assert "BaseImageMissing: the checkpoint's base image is not to be had on this node: " in bench.refused(first)
        assert "BaseImageMissing" in bench.refused(second)
        bench.reload("")
        bench.restores(second)
    finally:
        bench.registry.serve()


def test_service_account_is_known_by_the_token_of_the_pod(bench: Bench) -> None:
    cluster = Issuer()
    bench.node.path(ACCOUNT_KEYS).write_text(cluster.keys())
    reference = local(f"{bench.image()[0]}:1")
    have(bench.node, reference)
    bench.reload('[policy]\nservice_accounts = ["default/builder"]\n')

    def create(account: str = "") -> Container:
        pod = bench.kubelet.run_pod(bench.taken.pod(f"account-{next(NUMBERS)}"))
        if account:
            token = bench.node.path(f"{pod.spec.folder}/volumes/kubernetes.io~projected/kube-api-access/token")
            token.write_text(cluster.token("default", account, pod.spec.uid))
        return pod.create(bench.taken.restored(reference))

    create("builder").start()
    with pytest.raises(CriError, match="ServiceAccountNotAllowed: pods with the service account default/other"):
        create("other").start()
    with pytest.raises(CriError, match=r"ServiceAccountUnknown: .* its token is not good"):
        create().start()


def test_size_is_a_bound(bench: Bench) -> None:
    name, _ = bench.image()
    bench.reload("[policy]\nimage_bytes = 1000\n")
    assert "TooLargeForPolicy: the checkpoint image's layers have" in bench.refused(name)
    bench.reload("[policy]\nmemory_bytes = 4096\n")
    assert "TooLargeForPolicy: the checkpoint holds memory of" in bench.refused(name)
    bench.reload("[policy]\nimage_bytes = 1000000000\nmemory_bytes = 1000000000\n")
    bench.restores(name)


def test_waived_difference_is_let_pass_where_it_is_waived(
    bench: Bench, node_21: Node, checkpoints: Path, own_checkpoint: Taken
) -> None:
    taken = checkpointed(Kubelet(node_21), checkpoints, PodSpec("hurried"), own_checkpoint.spec, hurried)
    bench = replace(bench, taken=taken)
    name, _ = bench.image()
    bench.reload('[[policy.waive]]\nreason = "SchedulerExceeds"\nnamespaces = ["batch"]\n')
    assert "SchedulerExceeds" in bench.refused(name)
    bench.restores(name, "batch")
    assert bench.says("SchedulerExceeds is waived")


def hurried(container: Container) -> bool:
    """Its process has a priority that takes a right it does not have."""
    container.pod.node.sh(f"renice -n -5 -p {json.loads(container.info())['pid']}")
    return len(container.log()) > 3


def test_signed_image_is_restored_and_others_are_refused_by_name(bench: Bench, cosign: Cosign, key: Path) -> None:
    name = f"policy/built-{next(NUMBERS)}"
    reference = f"{bench.registry.address}/{name}:1"
    base = bench.taken.base.replace("localhost:5000", bench.registry.address)
    words = [bench.taken.archive, "-t", reference, "--format", "archive", "--base", base, "--push", "--plain-http"]
    environment = {**cosign.environment, "PYTHONPATH": str(CHECKOUT)}
    run([sys.executable, "-c", _CLI, "build", *words, "--sign-key", key], timeout_s=300, env=environment)
    bench.reload(SIGNED)
    bench.restores(name)
    unsigned, _ = bench.image()
    assert "SignatureMissing: this node restores signed checkpoint images only" in bench.refused(unsigned)
    stranger, image = bench.image()
    sign(bench, cosign, cosign.key(f"other-{next(NUMBERS)}"), stranger, image)
    assert "SignatureInvalid" in (said := bench.refused(stranger))
    assert "by another key" in said
    sign(bench, cosign, key, stranger, image)
    bench.restores(stranger)
    # Known from now on: the registry is not asked again.
    bench.registry.pause_service()
    try:
        bench.restores(name)
        assert "SignatureUnavailable" in bench.refused(unsigned)
    finally:
        bench.registry.serve()


def test_signature_of_another_image_is_refused(bench: Bench, cosign: Cosign, key: Path) -> None:
    signed, image = bench.image()
    sign(bench, cosign, key, signed, image)
    name, other = bench.image()
    kind = "sha256-{}.sig" if cosign.flavour == "containerd-1.7" else "sha256-{}"
    accept = {"Accept": "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json"}
    copy(bench, signed, kind.format(image.digest[7:]), name, kind.format(other.digest[7:]), accept)
    bench.reload(SIGNED)
    assert "of another image" in bench.refused(name)


def test_signature_in_the_nodes_store_needs_no_registry(bench: Bench, tmp_path: Path) -> None:
    cosign = Cosign("containerd-1.7", tmp_path)
    key = cosign.key("node")
    bench.node.path(KEY).write_bytes(key.with_suffix(".pub").read_bytes())
    name, image = bench.image()
    sign(bench, cosign, key, name, image)
    have(bench.node, local(f"{name}:1"))
    signature = local(f"{name}:{image.digest.replace(':', '-')}.sig")
    bench.node.ctr("content", "fetch", "--hosts-dir", CERTIFICATES, signature)
    bench.reload(SIGNED)
    bench.registry.pause_service()
    try:
        bench.restores(name)
    finally:
        bench.registry.serve()


def copy(bench: Bench, repository: str, tag: str, to: str, as_tag: str, accept: dict[str, str]) -> None:
    """A manifest or index with all that it names, from one repository to another under another tag."""
    status, headers, document = bench.registry.request("GET", f"/v2/{repository}/manifests/{tag}", headers=accept)
    assert status == 200
    content = json.loads(document)
    for entry in content.get("manifests", ()):
        copy(bench, repository, entry["digest"], to, entry["digest"], accept)
    for entry in (content["config"], *content["layers"]) if "layers" in content else ():
        mount = f"/v2/{to}/blobs/uploads/?mount={entry['digest']}&from={repository}"
        assert bench.registry.request("POST", mount, b"")[0] == 201
    kind = {"Content-Type": headers["content-type"]}
    assert bench.registry.request("PUT", f"/v2/{to}/manifests/{as_tag}", document, kind)[0] == 201
