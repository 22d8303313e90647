from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from kubectl_restore.image.credentials import Credentials, find_credentials
from shared.errors import CommandFailed, RestoreError


def _auth(user: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:pass:word".encode()).decode()}


def _write(path: Path, **document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))
    return path


def _user(found: Credentials | None) -> str | None:
    return found.username if found else None


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    return {"HOME": str(tmp_path / "home"), "XDG_RUNTIME_DIR": str(tmp_path / "run")}


def test_the_files_of_podman_come_before_dockers(env: dict[str, str], tmp_path: Path) -> None:
    host = "registry.example"
    assert find_credentials(host, "app", env=env) is None
    places = {
        "docker": tmp_path / "home/.docker/config.json",
        "config": tmp_path / "home/.config/containers/auth.json",
        "runtime": tmp_path / "run/containers/auth.json",
    }
    for name, path in places.items():
        _write(path, auths={host: _auth(name)})
        found = find_credentials(host, "app", env=env)
        assert found == Credentials(name, "pass:word", None, str(path))
        assert find_credentials("other.example", "app", env=env) is None


def test_the_file_that_is_named_is_the_only_one(env: dict[str, str], tmp_path: Path) -> None:
    host = "registry.example"
    _write(tmp_path / "home/.docker/config.json", auths={host: _auth("docker")})
    chosen = _write(tmp_path / "chosen.json", auths={host: _auth("chosen")})
    assert _user(find_credentials(host, "app", env={**env, "REGISTRY_AUTH_FILE": str(chosen)})) == "chosen"
    assert _user(find_credentials(host, "app", authfile=chosen, env=env)) == "chosen"
    empty = _write(tmp_path / "empty.json")
    assert find_credentials(host, "app", authfile=empty, env=env) is None
    _write(tmp_path / "dockers/config.json", auths={host: _auth("other")})
    assert _user(find_credentials(host, "app", env={**env, "DOCKER_CONFIG": str(tmp_path / "dockers")})) == "other"


@pytest.mark.parametrize(
    ("key", "repository", "found"),
    [
        ("registry.example/shop/app", "shop/app", True),
        ("registry.example/shop", "shop/app", True),
        ("registry.example/sho", "shop/app", False),
        ("https://registry.example", "shop/app", True),
        ("https://registry.example/v2/", "shop/app", True),
        ("http://registry.example/", "shop/app", True),
        ("registry.example:5000", "shop/app", False),
    ],
)
def test_keys_may_be_urls_or_a_part_of_the_path(
    key: str, repository: str, found: bool, env: dict[str, str], tmp_path: Path
) -> None:
    path = _write(tmp_path / "a.json", auths={key: _auth("me")})
    assert (find_credentials("registry.example", repository, authfile=path, env=env) is not None) is found


def test_the_most_special_key_wins(env: dict[str, str], tmp_path: Path) -> None:
    auths = {"r.example": _auth("host"), "r.example/shop/app": _auth("app"), "r.example/shop": _auth("shop")}
    path = _write(tmp_path / "a.json", auths=auths)
    assert _user(find_credentials("r.example", "shop/app", authfile=path, env=env)) == "app"
    assert _user(find_credentials("r.example", "shop/web", authfile=path, env=env)) == "shop"
    assert _user(find_credentials("r.example", "web", authfile=path, env=env)) == "host"


def test_docker_hub_has_an_old_name(env: dict[str, str], tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", auths={"https://index.docker.io/v1/": _auth("hub")})
    assert _user(find_credentials("docker.io", "library/x", authfile=path, env=env)) == "hub"


def test_an_identity_token_replaces_the_password(env: dict[str, str], tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", auths={"r.example": {**_auth("me"), "identitytoken": "t"}})
    found = find_credentials("r.example", "x", authfile=path, env=env)
    assert found
    assert (found.identity_token, found.username) == ("t", "")


def test_a_login_never_shows_its_secret() -> None:
    assert "hunter2" not in repr(Credentials("me", "hunter2", "hunter2", "file"))


@pytest.mark.parametrize(
    "content", ["{", "[]", '{"auths": {"r.example": {"auth": "!!!"}}}', '{"auths": {"r.example": {"auth": "bWU="}}}']
)
def test_a_damaged_file_is_named(content: str, env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(RestoreError, match=r"auth file .*a\.json") as refusal:
        find_credentials("r.example", "x", authfile=path, env=env)
    assert refusal.value.reason == "AuthFileInvalid"


def test_a_file_that_was_asked_for_must_be_there(env: dict[str, str], tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="No such file"):
        find_credentials("r.example", "x", authfile=tmp_path / "missing.json", env=env)


@pytest.mark.parametrize("content", ["", '{"auths": {"r.example": {}}}', '{"auths": {"r.example": {"auth": ""}}}'])
def test_a_file_without_a_login_is_no_error(content: str, env: dict[str, str], tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(content)
    assert find_credentials("r.example", "x", authfile=path, env=env) is None


@pytest.fixture
def helper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A credential helper ``docker-credential-vault`` that knows r.example and token.example."""
    program = tmp_path / "bin" / "docker-credential-vault"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\n"
        'read -r server\n[ "$1" = get ] || exit 9\n'
        'case "$server" in\n'
        """r.example) echo '{"ServerURL":"r.example","Username":"vault","Secret":"s"}';;\n"""
        """token.example) echo '{"ServerURL":"x","Username":"<token>","Secret":"id"}';;\n"""
        """odd.example) echo 'null';;\n"""
        """locked.example) echo 'the vault is locked' >&2; exit 1;;\n"""
        """*) echo 'credentials not found in native keychain'; exit 1;;\n"""
        "esac\n"
    )
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    return program


@pytest.mark.parametrize("where", ["credHelpers", "credsStore"])
def test_credential_helpers_are_asked(where: str, helper: Path, env: dict[str, str], tmp_path: Path) -> None:
    hosts = ("r.example", "token.example", "none.example", "odd.example", "locked.example")
    setting: Any = "vault" if where == "credsStore" else dict.fromkeys(hosts, "vault")
    path = _write(tmp_path / "a.json", **{where: setting})
    assert _user(find_credentials("r.example", "x", authfile=path, env=env)) == "vault"
    token = find_credentials("token.example", "x", authfile=path, env=env)
    assert token
    assert token.identity_token == "id"
    assert find_credentials("none.example", "x", authfile=path, env=env) is None
    with pytest.raises(CommandFailed, match="the vault is locked"):
        find_credentials("locked.example", "x", authfile=path, env=env)
    with pytest.raises(RestoreError, match="no login"):
        find_credentials("odd.example", "x", authfile=path, env=env)


@pytest.mark.parametrize("name", ["../../bin/sh", "missing"])
def test_a_helper_that_is_none_is_an_error(name: str, helper: Path, env: dict[str, str], tmp_path: Path) -> None:
    path = _write(tmp_path / "a.json", credHelpers={"r.example": name})
    with pytest.raises(RestoreError, match="credential"):
        find_credentials("r.example", "x", authfile=path, env=env)
