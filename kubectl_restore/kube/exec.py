"""Commands in a container: the remote command protocol over a WebSocket, standard output as a stream of bytes.

The first byte of a message is its channel (k8s.io/apimachinery pkg/util/remotecommand/constants.go). The kubernetes
package's own client collects everything in memory and decodes it, which is no way to move an archive of 10 GiB.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Generator, Sequence
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlencode, urlsplit

from kubectl_restore.kube.connection import CONNECT_S, Reply, path_of, refusal
from shared.errors import RestoreError, Unavailable
from shared.printable import safe

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection

PROTOCOLS: Final = ("v5.channel.k8s.io", "v4.channel.k8s.io")
_STDOUT, _STDERR, _STATUS = 1, 2, 3
_STDERR_KEPT: Final = 4096
_SAID_CHARACTERS_MAX: Final = 500


class StreamBroken(Unavailable):
    """The connection ended before the command did; what came until then is good."""

    def __init__(self, why: str) -> None:
        super().__init__("StreamBroken", f"the connection to the pod broke: {why}")


class CommandInPodFailed(RestoreError):
    def __init__(self, command: Sequence[str], code: int, said: str) -> None:
        what = safe(said.strip().splitlines()[-1][:_SAID_CHARACTERS_MAX]) if said.strip() else "it printed nothing"
        super().__init__("CommandInPodFailed", f"{command[0]} in the pod failed with exit status {code}: {what}")
        self.code = code
        self.said = said


def stream(
    connection: Connection, namespace: str, pod: str, container: str, command: Sequence[str], *, idle_s: float = 60
) -> Generator[bytes]:
    """Standard output of ``command`` as it comes; ends when the command succeeds.

    Raises StreamBroken (also after ``idle_s`` seconds of silence), CommandInPodFailed, ApiRefused.
    """
    import websocket

    query = [("container", container), ("stdout", "true"), ("stderr", "true"), *(("command", each) for each in command)]
    path = path_of("pods", namespace, pod, "exec")
    channel = _open(connection, f"{path}?{urlencode(query)}", idle_s)
    stderr = b""
    try:
        while True:
            try:
                opcode, message = channel.recv_data()
            except websocket.WebSocketTimeoutException as error:
                raise StreamBroken(f"nothing came for {idle_s:g} s") from error
            except (websocket.WebSocketException, OSError) as error:
                raise StreamBroken(str(error) or type(error).__name__) from error
            if opcode == websocket.ABNF.OPCODE_CLOSE or not message:
                if opcode == websocket.ABNF.OPCODE_CLOSE:
                    raise StreamBroken("the server closed it before the command ended")
                continue
            kind, payload = message[0], message[1:]
            if kind == _STDOUT and payload:
                yield payload
            elif kind == _STDERR:
                stderr = (stderr + payload)[-_STDERR_KEPT:]
            elif kind == _STATUS:
                _check(payload, command, stderr.decode(errors="replace"))
                return
    finally:
        channel.shutdown()


def output(
    connection: Connection, namespace: str, pod: str, container: str, command: Sequence[str], **limits: Any
) -> str:
    """All that a command prints, which is known to be short."""
    return b"".join(stream(connection, namespace, pod, container, command, **limits)).decode(errors="replace")


def _open(connection: Connection, path: str, idle_s: float) -> Any:
    import websocket

    configuration = connection.settings.configuration
    address = connection.server.replace("http", "ws", 1) + path
    verify = configuration.verify_ssl
    tls: dict[str, Any] = {"cert_reqs": ssl.CERT_REQUIRED if verify else ssl.CERT_NONE}
    if verify:
        # None would be websocket-client's own choice, certifi's; the system's is what every other request uses.
        tls["ca_certs"] = configuration.ssl_ca_cert or ssl.get_default_verify_paths().cafile
    else:
        tls["check_hostname"] = False
    if configuration.cert_file:
        tls |= {"certfile": configuration.cert_file, "keyfile": configuration.key_file}
    if name := getattr(configuration, "tls_server_name", None):
        tls["server_hostname"] = name
    channel = websocket.WebSocket(sslopt=tls, skip_utf8_validation=True, enable_multithread=False)
    headers = [f"{name}: {value}" for name, value in connection.headers()]
    try:
        channel.connect(
            address,
            header=headers,
            subprotocols=list(PROTOCOLS),
            timeout=CONNECT_S,
            suppress_origin=True,
            **_proxy(configuration),
        )
    except websocket.WebSocketBadStatusException as error:
        body = error.resp_body or b""
        reply = Reply(error.status_code, body if isinstance(body, bytes) else str(body).encode())
        raise refusal(reply, connection.server) from error
    except (websocket.WebSocketException, OSError) as error:
        raise StreamBroken(str(error) or type(error).__name__) from error
    channel.settimeout(idle_s)
    return channel


def _proxy(configuration: Any) -> dict[str, Any]:
    proxy = getattr(configuration, "proxy", None)
    if not proxy:
        return {}
    parts = urlsplit(proxy)
    kind = "http" if parts.scheme in ("http", "https") else parts.scheme
    login = (parts.username, parts.password) if parts.username else None
    return {
        "http_proxy_host": parts.hostname,
        "http_proxy_port": parts.port,
        "proxy_type": kind,
        "http_proxy_auth": login,
        "http_no_proxy": [each.strip() for each in (getattr(configuration, "no_proxy", None) or "").split(",")],
    }


def _check(payload: bytes, command: Sequence[str], said: str) -> None:
    """Raises CommandInPodFailed unless the command's Status says success (client-go tools/remotecommand/v4.go)."""
    try:
        status = json.loads(payload)
        if status.get("status") == "Success":
            return
        message = safe(str(status.get("message") or "")[:_SAID_CHARACTERS_MAX])
        causes = (status.get("details") or {}).get("causes") or []
        codes = [int(each["message"]) for each in causes if each.get("reason") == "ExitCode"]
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StreamBroken(f"the command's status cannot be read: {payload[:80]!r}") from error
    if not codes:
        raise RestoreError("ExecFailed", f"{command[0]} could not be run in the pod: {message or 'no reason given'}")
    raise CommandInPodFailed(command, codes[0], said or message)
