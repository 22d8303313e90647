"""Certificates that kubectl takes are taken, others are not."""

from __future__ import annotations

import ssl
import subprocess
import threading
from pathlib import Path

import pytest
import urllib3

from shared.tls import bare_context, client_context


def certificate(folder: Path, *extensions: str) -> Path:
    """A certificate of 127.0.0.1 that is its own CA, with its key."""
    path = folder / "server.pem"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-keyout", str(path), "-out", str(folder / "certificate.pem"), "-days", "2", "-subj", "/CN=ca"]
    subprocess.run([*command, *(word for each in extensions for word in ("-addext", each))], check=True)
    path.write_bytes(path.read_bytes() + (folder / "certificate.pem").read_bytes())
    return path


def answered(server: Path, context: ssl.SSLContext) -> bool:
    """Whether a client with this context gets through the handshake."""
    import socket

    own = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    own.load_cert_chain(server)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            with listener, own.wrap_socket(listener.accept()[0], server_side=True) as channel:
                channel.recv(4096)
                channel.sendall(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
        except OSError:
            pass

    thread = threading.Thread(target=serve)
    thread.start()
    pool = urllib3.PoolManager(ssl_context=context, ca_certs=str(server), retries=False, timeout=20)
    try:
        return pool.request("GET", f"https://127.0.0.1:{listener.getsockname()[1]}/").status == 204
    except urllib3.exceptions.SSLError:
        return False
    finally:
        thread.join()


@pytest.mark.parametrize("context", [client_context, bare_context])
def test_ca_without_key_usage_is_taken_as_kubectl_takes_it(context: type[ssl.SSLContext], tmp_path: Path) -> None:
    server = certificate(tmp_path, "subjectAltName=IP:127.0.0.1", "basicConstraints=critical,CA:TRUE")
    made = context()
    assert not made.verify_flags & ssl.VERIFY_X509_STRICT
    assert answered(server, made)


@pytest.mark.parametrize("context", [client_context, bare_context])
def test_certificate_of_another_name_is_not(context: type[ssl.SSLContext], tmp_path: Path) -> None:
    assert not answered(certificate(tmp_path, "subjectAltName=IP:127.0.0.9"), context())
