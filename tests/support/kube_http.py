"""The stub API server's two listeners: the API itself, and the kubelet's port."""

from __future__ import annotations

import json
import re
import socket
import ssl
import threading
import traceback
from collections.abc import Iterator
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.support.kube_backend import Answer, HangUp, Streams
from tests.support.kube_discovery import discovery
from tests.support.kube_objects import ApiFailure, Object, Resource, resource
from tests.support.kube_pod_rules import check_pod
from tests.support.websocket import WebSocket, accept_key

if TYPE_CHECKING:
    from tests.support.kube_api import KubeApi

_PATH = re.compile(
    r"/(?:api/v1|apis/(?P<group>[^/]+)/(?P<version>[^/]+))"
    r"(?:/namespaces/(?P<namespace>[^/]+)(?=/))?/(?P<resource>[^/]+)(?:/(?P<name>[^/]+))?(?:/(?P<rest>.+))?$"
)
_CHECKPOINT = re.compile(r"/checkpoint/(?P<namespace>[^/]+)/(?P<pod>[^/]+)/(?P<container>[^/]+)$")


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is no news."""


class Listener:
    def __init__(self, address: str, api: KubeApi, handler: type[_Handler], context: ssl.SSLContext | None) -> None:
        self._server = _Server((address, 0), type("Bound", (handler,), {"api": api}))
        if context:
            # Shaken hands in the connection's own thread: one client that does not speak TLS must not stop the others.
            self._server.socket = context.wrap_socket(
                self._server.socket, server_side=True, do_handshake_on_connect=False
            )
        self.port = int(self._server.server_address[1])
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class _Handler(BaseHTTPRequestHandler):
    api: KubeApi
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server_name = ""

    def log_message(self, *_: Any) -> None:
        """Tests look at ``api.requests`` instead."""

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except (OSError, ssl.SSLError, HangUp):
            self._hang_up()
        except Exception:
            # A mistake of the stub must not look like a server that hangs up.
            self.api.mistakes.append(traceback.format_exc())
            self._hang_up()

    def _hang_up(self) -> None:
        self.close_connection = True
        with suppress(OSError):
            # Other threads may still hold the socket open: only a shutdown is seen by the client.
            self.connection.shutdown(socket.SHUT_RDWR)

    def _read(self) -> None:
        from tests.support.kube_api import Request

        parts = urlsplit(self.path)
        self.route = unquote(parts.path)
        self.query = parse_qs(parts.query, keep_blank_values=True)
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        try:
            self.body: Any = json.loads(body) if body else None
        except ValueError:
            self.body = body
        headers = {name.lower(): value for name, value in self.headers.items()}
        self.groups = self.headers.get_all("Impersonate-Group") or []
        if self.groups:
            headers["impersonate-group"] = ",".join(self.groups)
        with self.api.lock:
            self.api.requests.append(
                Request(self.command, self.route, self.query, headers, self.body, self.server_name)
            )

    def first(self, name: str, default: str = "") -> str:
        return self.query.get(name, [default])[0]

    def _user(self) -> str | None:
        if not self.api.tokens:
            return "system:anonymous"
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        return self.api.tokens.get(token) if kind.lower() == "bearer" else None

    def reply(self, answer: Answer) -> None:
        content_type, body = answer.encoded
        self.send_response(answer.status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _any(self) -> None:
        self._read()
        programmed = self.api.programmed(self.command, self.route)
        if isinstance(programmed, Answer):
            self.reply(programmed)
            return
        if programmed is not None:
            raise programmed
        self.serve()

    def serve(self) -> None:
        raise NotImplementedError

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _any  # noqa: N815


class KubeletHandler(_Handler):
    """https://NODE:10250; kubernetes pkg/kubelet/server/{server,auth}.go words the refusals."""

    server_name = "kubelet"

    def serve(self) -> None:
        user = self._user()
        if user is None:
            self.reply(Answer(401, "Unauthorized"))
            return
        self.reply(kubelet_answer(self.api, user, self._node(), self.command, self.route, self.query))

    def _node(self) -> str:
        """All nodes share this port: the one that is meant is the one the pod is on."""
        found = _CHECKPOINT.match(self.route)
        if found:
            with suppress(ApiFailure):
                return str(self.api.pod(found["pod"], found["namespace"])["spec"]["nodeName"])
        return ""


def kubelet_answer(api: KubeApi, user: str, node: str, method: str, route: str, query: dict[str, list[str]]) -> Answer:
    found = _CHECKPOINT.match(route)
    subresource = "checkpoint" if found else "proxy"
    if not api.may_at_kubelet(user, "create", f"nodes/{subresource}"):
        text = f"Forbidden (user={user}, verb=create, resource=nodes, subresource(s)=[{subresource}])\n"
        return Answer(403, text)
    if not found or not api.checkpoint_gate:
        return Answer(404, "404 page not found\n")
    if method != "POST":
        return Answer(405, "405: Method Not Allowed", "text/plain")
    timeout = query.get("timeout", [""])[0]
    if timeout and not re.fullmatch(r"-?\d+", timeout):
        return Answer(404, "cannot parse value of timeout parameter")
    if timeout.startswith("-"):
        return Answer(500, "negative timeout value specified")
    return api.backend.checkpoint(node, found["namespace"], found["pod"], found["container"], timeout)


class ApiHandler(_Handler):
    server_name = "api"

    def serve(self) -> None:
        try:
            user = self._user()
            if user is None:
                raise ApiFailure(401, "Unauthorized", "Unauthorized")
            self.user = self._impersonated(user)
            self._route()
        except ApiFailure as failure:
            self.reply(Answer(failure.code, failure.status))

    def _impersonated(self, user: str) -> str:
        wanted = self.headers.get("Impersonate-User")
        if wanted is None:
            return user
        if not self.api.may(user, "impersonate", "users"):
            raise ApiFailure(
                403,
                "Forbidden",
                f'users "{wanted}" is forbidden: User "{user}" cannot impersonate resource "users" in API group "" '
                "at the cluster scope",
                {"name": wanted, "kind": "users"},
            )
        return wanted

    def _route(self) -> None:
        if (discovered := discovery(self.api.version, self.route)) is not None:
            self.reply(Answer(200, discovered))
            return
        found = _PATH.match(self.route)
        kind = resource(found["resource"], found["group"] or "") if found else None
        if found is None or kind is None:
            raise ApiFailure(404, "NotFound", "the server could not find the requested resource")
        self.kind, self.namespace, self.name, self.rest = (
            kind,
            found["namespace"] or "",
            found["name"] or "",
            found["rest"] or "",
        )
        subresource = self.rest.partition("/")[0]
        if self.kind.plural == "nodes" and subresource == "proxy":
            self._allow("create" if self.command == "POST" else "get", "proxy")
            self._proxy()
        elif self.kind.plural == "pods" and subresource == "exec":
            # kubernetes 1.35 asks for create also when a WebSocket comes as GET.
            self._allow("create", "exec")
            self._exec()
        elif self.kind.plural == "pods" and subresource == "log":
            self._allow("get", "log")
            self._log()
        else:
            self._objects(subresource)

    def _allow(self, verb: str, subresource: str = "") -> None:
        of = f"{self.kind.plural}/{subresource}" if subresource else self.kind.plural
        if self.api.may(self.user, verb, of, self.namespace):
            return
        subject = f'{self.kind.qualified} "{self.name}"' if self.name else self.kind.qualified
        where = f'in the namespace "{self.namespace}"' if self.namespace else "at the cluster scope"
        raise ApiFailure(
            403,
            "Forbidden",
            f'{subject} is forbidden: User "{self.user}" cannot {verb} resource "{of}" '
            f'in API group "{self.kind.group}" {where}',
            {"kind": self.kind.plural} | ({"name": self.name} if self.name else {}),
        )

    # ---- objects ----

    def _objects(self, subresource: str) -> None:
        method = {"GET": self._get, "POST": self._post, "PUT": self._put, "PATCH": self._patch, "DELETE": self._delete}
        method[self.command](subresource)

    def _get(self, subresource: str) -> None:
        objects = self.api.objects
        labels, fields = self.first("labelSelector"), self.first("fieldSelector")
        if self.name:
            self._allow("get", subresource)
            self.reply(Answer(200, objects.get(self.kind, self.namespace, self.name)))
        elif self.first("watch") in ("1", "true"):
            self._allow("watch")
            limit_s = float(self.first("timeoutSeconds", "30"))
            since = self.first("resourceVersion")
            self._stream(objects.watch(self.kind, self.namespace, labels, fields, since, limit_s))
        else:
            self._allow("list")
            found = {
                "kind": f"{self.kind.kind}List",
                "apiVersion": self.kind.api_version,
                "metadata": {"resourceVersion": objects.version},
                "items": objects.find(self.kind, self.namespace, labels, fields),
            }
            self.reply(Answer(200, found))

    def _stream(self, events: Iterator[Object]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for event in events:
            line = json.dumps(event).encode() + b"\n"
            self.wfile.write(f"{len(line):x}\r\n".encode() + line + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _post(self, subresource: str) -> None:
        self._allow("create", subresource)
        if not isinstance(self.body, dict):
            content_type = self.headers.get("Content-Type", "")
            raise ApiFailure(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: application/json; "
                f"it was {content_type}",
            )
        if self.kind.plural == "selfsubjectaccessreviews":
            self.reply(Answer(201, self._review()))
            return
        if self.kind.plural == "selfsubjectreviews":
            user = {"username": self.user, "groups": [*self.groups, "system:authenticated"]}
            self.reply(
                Answer(201, {"apiVersion": self.kind.api_version, "kind": self.kind.kind, "status": {"userInfo": user}})
            )
            return
        if subresource == "binding":
            raise ApiFailure(400, "BadRequest", "the object provided is unrecognized")
        if self.kind.plural == "pods":
            check_pod(self.body)
        if self._dry():
            self.reply(Answer(201, self.api.objects.prepare(self.kind, self.namespace, self.body)))
            return
        made = self.api.objects.create(self.kind, self.namespace, self._defaulted(self.body))
        if self.kind.plural == "pods" and made["spec"].get("nodeName"):
            self.api.backend.pod_created(made)
        self.reply(Answer(201, made))

    def _defaulted(self, given: Object) -> Object:
        """Binds pods to the node they ask for, else to the first, as a scheduler would."""
        if self.kind.plural != "pods":
            return given
        spec = {
            "restartPolicy": "Always",
            "terminationGracePeriodSeconds": 30,
            "dnsPolicy": "ClusterFirst",
            **given["spec"],
        }
        if not spec.get("nodeName"):
            wanted = spec.get("nodeSelector", {})
            nodes = [
                node["metadata"]["name"]
                for node in self.api.objects.find(_of("nodes"))
                if wanted.items() <= node["metadata"].get("labels", {}).items()
            ]
            if nodes:
                spec["nodeName"] = nodes[0]
        return {**given, "spec": spec, "status": {"phase": "Pending"}}

    def _dry(self) -> bool:
        return self.first("dryRun") == "All"

    def _review(self) -> Object:
        asked = self.body["spec"].get("resourceAttributes", {})
        of = asked.get("resource", "") + (f"/{asked['subresource']}" if asked.get("subresource") else "")
        allowed = self.api.may(self.user, asked.get("verb", ""), of, asked.get("namespace", ""))
        return {**self.body, "status": {"allowed": allowed}}

    def _put(self, subresource: str) -> None:
        self._allow("update", subresource)
        if self._dry():
            self.reply(Answer(200, self.body))
            return
        self.reply(Answer(200, self.api.objects.replace(self.kind, self.namespace, self.name, self.body)))

    def _patch(self, subresource: str) -> None:
        """Merge patches (strategic ones likewise); an apply patch creates what is missing."""
        self._allow("patch", subresource)
        objects = self.api.objects
        content_type = self.headers.get("Content-Type", "")
        body = json.loads(self.body) if isinstance(self.body, bytes) else self.body
        if "apply-patch" in content_type:
            try:
                objects.get(self.kind, self.namespace, self.name)
            except ApiFailure:
                self.body = body
                self._post("")
                return
        if not isinstance(body, dict):
            raise ApiFailure(
                415, "UnsupportedMediaType", "the stub takes merge, strategic merge and apply patches only"
            )
        if self._dry():
            from tests.support.kube_objects import merged

            self.reply(Answer(200, merged(objects.get(self.kind, self.namespace, self.name), body)))
            return
        self.reply(Answer(200, objects.merge(self.kind, self.namespace, self.name, body)))

    def _delete(self, subresource: str) -> None:
        self._allow("delete", subresource)
        objects = self.api.objects
        present = objects.get(self.kind, self.namespace, self.name)
        wanted = (self.body or {}).get("preconditions", {}).get("uid") if isinstance(self.body, dict) else None
        if wanted and wanted != present["metadata"]["uid"]:
            raise ApiFailure(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on {self.kind.qualified} "{self.name}": the UID in the precondition '
                f"({wanted}) does not match the UID in record ({present['metadata']['uid']}). "
                "The object might have been deleted and then recreated",
            )
        if self._dry():
            self.reply(Answer(200, present))
            return
        if self.kind.plural != "pods":
            objects.remove(self.kind, self.namespace, self.name)
            self.reply(Answer(200, {"kind": "Status", "apiVersion": "v1", "status": "Success"}))
            return
        options = self.body if isinstance(self.body, dict) else {}
        grace = int(self.first("gracePeriodSeconds") or options.get("gracePeriodSeconds", 30))
        gone = objects.merge(
            self.kind,
            self.namespace,
            self.name,
            {
                "metadata": {
                    "deletionTimestamp": present["metadata"]["creationTimestamp"],
                    "deletionGracePeriodSeconds": grace,
                }
            },
        )
        self.api.backend.pod_deleted(gone, grace)
        self.reply(Answer(200, gone))

    # ---- nodes ----

    def _proxy(self) -> None:
        self.api.objects.get(self.kind, "", self.name)
        route = "/" + self.rest.partition("/")[2]
        user = self.api.kubelet_client
        self.reply(kubelet_answer(self.api, user, self.name, self.command, route, self.query))

    # ---- pods ----

    def _running(self) -> tuple[Object, str]:
        pod = self.api.objects.get(self.kind, self.namespace, self.name)
        named = [each["name"] for each in pod["spec"]["containers"]]
        container = self.first("container") or named[0]
        if container not in named:
            raise ApiFailure(400, "BadRequest", f"container {container} is not valid for pod {self.name}")
        return pod, container

    def _log(self) -> None:
        pod, container = self._running()
        pieces = self.api.backend.log(
            pod, container, follow=self.first("follow") == "true", previous=self.first("previous") == "true"
        )
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        for piece in filter(None, pieces):
            self.wfile.write(f"{len(piece):x}\r\n".encode() + piece + b"\r\n")
        self.wfile.write(b"0\r\n\r\n")

    def _exec(self) -> None:
        """The remote command protocol: a byte names the channel (k8s.io/apimachinery pkg/util/remotecommand)."""
        pod, container = self._running()
        if self.headers.get("Upgrade", "").lower() != "websocket":
            raise ApiFailure(400, "BadRequest", "Upgrade request required")
        if pod["status"].get("phase") != "Running":
            raise ApiFailure(400, "BadRequest", f"pod {self.name} does not have a host assigned")
        offered = [each.strip() for each in self.headers.get("Sec-WebSocket-Protocol", "").split(",")]
        protocol = next(each for each in ("v5.channel.k8s.io", "v4.channel.k8s.io") if each in offered)
        self.send_response(101, "Switching Protocols")
        self.send_header("Upgrade", "websocket")
        self.send_header("Connection", "Upgrade")
        self.send_header("Sec-WebSocket-Accept", accept_key(self.headers["Sec-WebSocket-Key"]))
        self.send_header("Sec-WebSocket-Protocol", protocol)
        self.end_headers()
        self.close_connection = True
        channel = WebSocket(self.rfile, self.wfile)  # type: ignore[arg-type]

        def stdin() -> bytes | None:
            while (message := channel.receive()) is not None:
                if message[:1] == b"\xff" and message[1:2] == b"\0":
                    return None
                if message[:1] == b"\0":
                    return message[1:]
            return None

        streams = Streams(
            lambda piece: channel.send(b"\x01" + piece),
            lambda piece: channel.send(b"\x02" + piece),
            stdin if self.first("stdin") in ("1", "true") else None,
        )
        code = self.api.backend.exec(pod, container, self.query.get("command", []), streams)
        status: Object = {"metadata": {}, "status": "Success"}
        if code:
            status = {
                "metadata": {},
                "status": "Failure",
                "message": f"command terminated with non-zero exit code: error executing command, exit code {code}",
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": str(code)}]},
            }
        channel.send(b"\x03" + json.dumps(status).encode())
        channel.close()


def _of(plural: str) -> Resource:
    found = resource(plural)
    assert found is not None
    return found
