"""What comes over sockets: NRI's frames and calls, a pod's annotations, image documents, registries, the API server."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import websocket

from kubectl_restore.check.machine import node_machine
from kubectl_restore.image import registry
from kubectl_restore.kube import exec as execution
from nri_plugin.cluster.logins import logins_for
from nri_plugin.nri.protocol import CreateContainer, PluginProtocol
from nri_plugin.restore.request import RestoreRequest, concerns_us, request_of
from nri_plugin.ttrpc.errors import ProtocolError
from shared import oci
from shared.contract import NODE_FACTS, POD_CHECKPOINT
from shared.errors import RestoreError
from shared.judge.pod_identity import pod_identity
from tests.fuzz.target import Target, attempt

RECORDINGS = Path(__file__).parents[1] / "data/nri"
HANDLER = "nri-restore"
DEEP = b'{"a":' * 6000
"""JSON deeper than Python's json goes."""


def _session(pieces: list[bytes]) -> tuple[list[str], bytes]:
    """What a session makes of these pieces, and what it answers; ends at the first breach of the protocol."""
    protocol = PluginProtocol("nri-restore", "90")
    protocol.register(5.0)
    events: list[str] = []
    sent = protocol.data_to_send()
    for piece in pieces:
        try:
            found = protocol.feed(piece)
        except ProtocolError as error:
            return [*events, error.sentence], sent
        for event in found:
            events.append(repr(event))
            if isinstance(event, CreateContainer):
                attempt(lambda event=event: _asked(event), (RestoreError,))  # type: ignore[misc]
                protocol.reply(event, None)
        sent += protocol.data_to_send()
    return events, sent


def _asked(create: CreateContainer) -> None:
    if concerns_us(create.pod, create.container, HANDLER):
        request = request_of(create.pod, create.container, HANDLER)
        assert RestoreRequest.from_json(json.loads(request.to_json())) == request


def _nri(content: bytes) -> None:
    """However the socket cuts the bytes, the same is understood and answered."""
    whole = _session([content])
    if "ttrpc" in str(whole[0][-1:]) or "runtime" in str(whole[0][-1:]):
        return  # a breach drops the calls that came in the same piece
    third = len(content) // 3
    assert _session([content[:third], content[third : third + 1], content[third + 1 :]]) == whole


def _nri_seeds() -> Iterator[bytes]:
    for path in sorted(RECORDINGS.glob("*.hex")):
        for line in path.read_text().splitlines():
            if line.startswith("< ") and len(line) < 12_000:
                yield bytes.fromhex(line[2:])


def _annotations(content: bytes) -> None:
    """``key\\0value`` pairs of a pod, as a user writes them."""
    from nri_plugin.nri.nri_pb2 import Container, PodSandbox

    words = [word.decode(errors="replace") for word in content.split(b"\0")]
    notes = dict(zip(words[::2], words[1::2], strict=False))
    pod = PodSandbox(id="p", name="pod", namespace="shop", uid="u", runtime_handler=HANDLER, annotations=notes)
    container = Container(id="c", name="app", annotations=notes, labels=notes)
    request = request_of(pod, container, HANDLER)
    assert RestoreRequest.from_json(json.loads(request.to_json())) == request


def _annotation_seeds() -> Iterator[bytes]:
    for key, value in (
        (POD_CHECKPOINT, "registry.example/a:1"),
        (f"{POD_CHECKPOINT}.app", "a@sha256:" + "0" * 64),
        ("nri-restore/criu", "file-locks"),
        ("nri-restore/tcp", "established"),
        ("nri-restore/on-failure", "start"),
        ("io.kubernetes.container.restartCount", "3"),
        ("io.kubernetes.cri.image-name", "a"),
        ("io.kubernetes.container.restartCount", "9" * 5000),  # more digits than int() takes
    ):
        yield f"{key}\0{value}".encode()


def _manifest(content: bytes) -> None:
    document = oci.parse_document(content)
    if isinstance(document, oci.Index):
        document.choose(oci.Platform("linux", "amd64", "v1"))
    else:
        assert oci.parse_document(oci.encode(document.as_json())) == document


def _manifest_seeds() -> Iterator[bytes]:
    blob = oci.Descriptor(oci.LAYER, "sha256:" + "0" * 64, 7, {"a": "b"})
    yield oci.encode(oci.Manifest(blob, (blob, blob), {"a": "b"}).as_json())
    entry = {**blob.as_json(), "platform": {"os": "linux", "architecture": "arm", "variant": "v7"}}
    yield oci.encode({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": [entry]})
    yield DEEP


def _reference(content: bytes) -> None:
    found = oci.parse_reference(content.decode(errors="surrogateescape"))
    assert oci.parse_reference(str(found)) == found


def _reference_seeds() -> Iterator[bytes]:
    yield from (b"a", b"a/b:1", b"localhost/a", b"localhost:5000/a/b:x", b"[::1]:5000/a", b"a@sha256:" + b"0" * 64)


def _challenge(content: bytes) -> None:
    """The WWW-Authenticate header and the words of an error, as a registry may send them."""
    registry._parse_challenge(content.decode("latin-1"))
    assert registry._message(content).isprintable()


def _challenge_seeds() -> Iterator[bytes]:
    yield b'Bearer realm="https://auth.example/token",service="a \\"b\\"",scope="repository:a:pull"'
    yield b"Basic realm=x, Bearer realm=y"
    yield b'{"errors":[{"code":"DENIED","message":"no"}]}'
    yield b"Bearer " + b"a" * 60_000  # took 22 s once
    yield DEEP


class _Channel:
    """A WebSocket whose server sent this: messages cut at zero bytes, the last of them the command's status."""

    def __init__(self, content: bytes) -> None:
        *output, status = content.split(b"\0\0")
        self._messages = [*output, b"\3" + status]

    def recv_data(self) -> tuple[int, bytes]:
        if not self._messages:
            return websocket.ABNF.OPCODE_CLOSE, b""
        return websocket.ABNF.OPCODE_BINARY, self._messages.pop(0)

    def shutdown(self) -> None:
        pass


def _exec(content: bytes) -> None:
    connection: Any = None
    with patch.object(execution, "_open", lambda *_: _Channel(content)):
        execution.output(connection, "shop", "pod", "app", ["cat", "/x"])


def _exec_seeds() -> Iterator[bytes]:
    yield b'\1out\0\0\2err\0\0{"status":"Success"}'
    causes = [{"reason": "ExitCode", "message": "3"}]
    yield json.dumps({"status": "Failure", "message": "no", "details": {"causes": causes}}).encode()
    yield DEEP


def _facts(content: bytes) -> None:
    """What a node's annotation says about it."""
    node = {"metadata": {"name": "node", "annotations": {NODE_FACTS: content.decode(errors="replace")}}}
    assert node_machine(node).cgroup_version in (None, 1, 2)


def _fact_seeds() -> Iterator[bytes]:
    yield b'{"criu":"4.2","cgroup":2,"lsm":"none","cpu":"x","cpuFlags":["sse"],"xsave":832}'
    yield DEEP


def _secret(content: bytes) -> None:
    """A pull secret, which whoever may create pods may write."""
    for kind in ("dockerconfigjson", "dockercfg"):
        data = {f".{kind}": base64.b64encode(content).decode()}
        for user, password in logins_for("registry.example/a/b:1", [{"type": f"kubernetes.io/{kind}", "data": data}]):
            assert isinstance(user, str)
            assert isinstance(password, str)


def _secret_seeds() -> Iterator[bytes]:
    entry = {"auth": base64.b64encode(b"user:password").decode()}
    places = {"registry.example": entry, "https://*.example/v1/a": {"username": "u", "password": "p"}}
    yield json.dumps({"auths": places}).encode()
    yield json.dumps(places).encode()
    yield json.dumps({"registry.example": {"auth": "\u20ac"}}).encode()
    yield json.dumps({"*a" * 2000 + ".example": entry}).encode()
    yield DEEP


TARGETS = (
    Target("pull-secret", _secret, _secret_seeds, ()),
    Target("node-facts", _facts, _fact_seeds, ()),
    Target("nri", _nri, _nri_seeds, (ProtocolError,)),
    Target("annotations", _annotations, _annotation_seeds, (RestoreError,)),
    Target("manifest", _manifest, _manifest_seeds, (RestoreError,)),
    Target("reference", _reference, _reference_seeds, (RestoreError,)),
    Target("challenge", _challenge, _challenge_seeds, (RestoreError,)),
    Target("exec", _exec, _exec_seeds, (RestoreError,)),
    Target(
        "cri-metadata", pod_identity, lambda: [b'{"Metadata":{"Config":{"linux":{"security_context":{}}}}}', DEEP], ()
    ),
)
