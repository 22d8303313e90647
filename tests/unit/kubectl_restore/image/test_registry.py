from __future__ import annotations

import base64
import json
import socket
from pathlib import Path

import pytest

from kubectl_restore.image import registry as registry_module
from kubectl_restore.image.access import Access
from kubectl_restore.image.registry import Registry
from shared.errors import RestoreError, Unavailable
from tests.fuzz.bounds import bounded
from tests.support.fake_registry import TLS, FakeRegistry, Faults
from tests.unit.kubectl_restore.conftest import StartRegistry

ABSENT = "sha256:" + "0" * 64


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry_module, "_RETRY_PAUSES_S", (0.0, 0.0))


@pytest.fixture
def authfile(tmp_path: Path) -> Path:
    return tmp_path / "auth.json"


def _log_in(path: Path, registry: FakeRegistry, password: str = "secret", **entry: str) -> Access:
    auth = base64.b64encode(f"tester:{password}".encode()).decode()
    path.write_text(json.dumps({"auths": {registry.host: entry or {"auth": auth}}}))
    return Access(authfile=path)


def _has(host: str, access: Access = Access(), *, push: bool = False) -> bool:  # noqa: B008
    return Registry(host, "app", access, push=push).has(ABSENT)


def test_a_plain_registry_on_this_machine_needs_no_option(start_registry: StartRegistry) -> None:
    registry = start_registry()
    assert not _has(registry.host)
    digest = registry.add_blob("app", b"x")
    assert Registry(registry.host, "app", Access(), push=False).has(digest)


def test_plain_http_is_not_tried_elsewhere_unless_asked_for(start_registry: StartRegistry) -> None:
    """127.0.0.1 by a name that is not known to be this machine."""
    host = start_registry().host.replace("127.0.0.1", "0.0.0.0")
    with pytest.raises(RestoreError, match=r"does not speak TLS .*; use --plain-http") as refusal:
        _has(host)
    assert refusal.value.reason == "RegistryNotTls"
    assert not _has(host, Access("always"))
    assert not _has(host, Access("probe"))


def test_tls_is_used_on_this_machine_when_it_is_spoken(start_registry: StartRegistry) -> None:
    registry = start_registry(tls=True)
    assert not _has(registry.host, Access(ca_file=TLS / "ca.pem"))
    assert not _has(registry.host, Access("probe", ca_file=TLS / "ca.pem"))
    assert not _has(registry.host, Access(verify_tls=False))


def test_an_untrusted_certificate_is_refused_with_the_remedy(start_registry: StartRegistry) -> None:
    for access in (Access(), Access("probe")):
        with pytest.raises(
            RestoreError, match=r"certificate .* is not trusted .*--ca-file.*--no-tls-verify"
        ) as refusal:
            _has(start_registry(tls=True).host, access)
        assert refusal.value.reason == "RegistryCertificate"


def test_ssl_cert_file_is_respected(start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(TLS / "ca.pem"))
    assert not _has(start_registry(tls=True).host)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_ca_file_that_is_none_is_named(content: str | None, start_registry: StartRegistry, tmp_path: Path) -> None:
    path = tmp_path / "ca.pem"
    if content:
        path.write_text(content)
    with pytest.raises(RestoreError, match=f"CA file {path}") as refusal:
        _has(start_registry(tls=True).host, Access(ca_file=path))
    assert refusal.value.reason == "CaFileInvalid"


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_login_is_given_only_when_it_is_wanted(auth: str, start_registry: StartRegistry, authfile: Path) -> None:
    open_registry = start_registry()
    assert not _has(open_registry.host, _log_in(authfile, open_registry))
    assert not any("Authorization" in headers for _, _, headers in open_registry.requests)
    registry = start_registry(auth=auth)
    assert not _has(registry.host, _log_in(authfile, registry))


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_without_a_login_the_sentence_says_to_log_in(auth: str, start_registry: StartRegistry) -> None:
    registry = start_registry(auth=auth)
    with pytest.raises(RestoreError, match=f"{registry.host} for app wants a login.*docker login") as refusal:
        _has(registry.host)
    assert refusal.value.reason == "RegistryUnauthorized"


@pytest.mark.parametrize("auth", ["basic", "bearer"])
def test_a_wrong_login_is_named_by_its_file(auth: str, start_registry: StartRegistry, authfile: Path) -> None:
    registry = start_registry(auth=auth)
    with pytest.raises(RestoreError, match=f"refuses the login from {authfile}") as refusal:
        _has(registry.host, _log_in(authfile, registry, password="old"))
    assert refusal.value.reason == "RegistryUnauthorized"


def test_an_identity_token_buys_a_token(start_registry: StartRegistry, authfile: Path) -> None:
    registry = start_registry(auth="bearer")
    assert not _has(registry.host, _log_in(authfile, registry, identitytoken="an-identity"))


def test_a_token_is_asked_for_once_and_for_what_is_done(start_registry: StartRegistry, authfile: Path) -> None:
    registry = start_registry(auth="bearer")
    access = _log_in(authfile, registry)
    client = Registry(registry.host, "shop/ck", access, push=True, reads=("shop/base", "shop/ck"))
    for _ in range(3):
        client.has(ABSENT)
    assert registry.count("GET", "^/token") == 1
    assert list(registry.tokens) == ["repository:shop/ck:pull,push repository:shop/base:pull"]


def test_an_old_token_is_renewed(start_registry: StartRegistry, authfile: Path) -> None:
    registry = start_registry(auth="bearer")
    client = Registry(registry.host, "app", _log_in(authfile, registry), push=False)
    client.has(ABSENT)
    registry.tokens.clear()
    client.has(ABSENT)
    assert registry.count("GET", "^/token") == 2


def test_a_login_is_not_sent_to_another_host(start_registry: StartRegistry, authfile: Path) -> None:
    registry, other = start_registry(auth="basic"), start_registry()
    client = Registry(registry.host, "app", _log_in(authfile, registry), push=False)
    client.has(ABSENT)
    client.open("GET", f"http://{other.host}/v2/").drain_conn()
    assert "Authorization" not in other.requests[-1][2]


def test_a_token_is_not_fetched_over_plain_http_for_a_registry_with_tls(
    start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = start_registry(tls=True, auth="bearer")
    monkeypatch.setattr(
        registry_module, "_parse_challenge", lambda header: ("bearer", {"realm": "http://evil.example/token"})
    )
    with pytest.raises(RestoreError, match="no safe place to get a token from"):
        _has(registry.host, Access(ca_file=TLS / "ca.pem"))


@pytest.mark.parametrize(
    ("header", "parsed"),
    [
        ('Bearer realm="https://a/token",service="s",scope="x:y:pull,push"', "bearer"),
        ('Basic realm="x", Bearer realm="https://a/token",service=s', "bearer"),
        ("basic", "basic"),
        ("Negotiate abc", None),
        ("", None),
    ],
)
def test_challenges_are_read_as_rfc_7235_says(header: str, parsed: str | None) -> None:
    found = registry_module._parse_challenge(header)
    assert (found[0] if found else None) == parsed
    if parsed == "bearer":
        assert found
        assert (found[1]["realm"], found[1]["service"]) == ("https://a/token", "s")


def test_a_challenge_of_one_long_word_is_read_in_no_time() -> None:
    with bounded(cpu_s=5):
        assert registry_module._parse_challenge("Bearer " + "a" * 60_000) == ("bearer", {})


@pytest.mark.parametrize("lifetime_s", [10**400, -1])
def test_a_lifetime_that_no_token_has_is_not_believed(
    start_registry: StartRegistry, authfile: Path, lifetime_s: int
) -> None:
    registry = start_registry(auth="bearer")
    registry.token_lifetime_s = lifetime_s
    assert not _has(registry.host, _log_in(authfile, registry))


@pytest.mark.parametrize(
    ("status", "reason", "words"),
    [
        (403, "RegistryForbidden", "forbids this to an anonymous user"),
        (404, "RegistryNotFound", "no such image or repository"),
        (413, "RegistryTooLarge", "raise its limit"),
        (400, "RegistryRefused", "answered with status 400 (planned fault)"),
    ],
)
def test_a_refusal_is_one_sentence_and_is_not_repeated(
    status: int, reason: str, words: str, start_registry: StartRegistry
) -> None:
    registry = start_registry(faults=Faults(fail={"GET": [0, status]}))
    client = Registry(registry.host, "app", Access("always"), push=False)
    client.request("GET", client.url("manifests/x"), expect=(404,))
    with pytest.raises(RestoreError) as refusal:
        client.request("GET", client.url("manifests/x"), expect=(200,))
    assert refusal.value.reason == reason
    assert words in str(refusal.value)
    assert registry.host in str(refusal.value)
    assert "planned fault" in str(refusal.value)
    assert "\n" not in str(refusal.value)
    assert len(registry.requests) == 2


@pytest.mark.parametrize("status", [500, 503, 429])
def test_passing_trouble_is_tried_again_a_few_times(status: int, start_registry: StartRegistry) -> None:
    registry = start_registry(faults=Faults(fail={"HEAD": [status, status, 0]}))
    assert not _has(registry.host, Access("always"))
    registry.faults.fail = {"HEAD": [status] * 3}
    with pytest.raises(Unavailable, match="try again later"):
        _has(registry.host, Access("always"))
    assert registry.count("HEAD") == 6


def test_nobody_there_is_said_at_once() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    for access in (Access(), Access("always")):
        with pytest.raises(Unavailable, match=f"cannot reach the registry {host}: connection refused") as refusal:
            _has(host, access)
        assert refusal.value.reason == "RegistryUnreachable"


def test_a_host_that_does_not_exist_is_said() -> None:
    with pytest.raises(Unavailable, match=r"there is no host named nowhere\.invalid") as refusal:
        _has("nowhere.invalid")
    assert refusal.value.reason == "RegistryUnreachable"


def test_a_registry_that_hangs_up_is_unavailable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        import threading

        def hang_up() -> None:
            for _ in range(3):
                connection, _ = server.accept()
                connection.recv(100)
                connection.close()

        thread = threading.Thread(target=hang_up, daemon=True)
        thread.start()
        with pytest.raises(Unavailable, match=r"broke off: .*; try again") as refusal:
            _has(f"127.0.0.1:{server.getsockname()[1]}", Access("always"))
        thread.join(5)
        assert refusal.value.reason == "RegistryInterrupted"


def test_an_endless_answer_is_refused(start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    registry = start_registry()
    registry.add_manifest("app", "1", b'{"x":"' + b"x" * 5000 + b'"}')
    monkeypatch.setattr(registry_module, "_ANSWER_BYTES_MAX", 1000)
    client = Registry(registry.host, "app", Access(), push=False)
    with pytest.raises(RestoreError, match="more than 1000 bytes"):
        client.request("GET", client.url("manifests/1"), expect=(200,))


def test_docker_hub_has_another_address_than_its_name() -> None:
    assert Registry("docker.io", "library/x", Access(), push=False).url("y") == (
        "https://registry-1.docker.io/v2/library/x/y"
    )


def test_a_proxy_is_used_but_not_for_this_machine(
    start_registry: StartRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, registry = start_registry(), start_registry()
    monkeypatch.setenv("http_proxy", f"http://{proxy.host}")
    assert not _has(registry.host, Access("always"))
    assert not proxy.requests
    assert not _has("registry.example", Access("always"))
    assert proxy.count("HEAD", "^http://registry.example/v2/app/blobs/") == 1
