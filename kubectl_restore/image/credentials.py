"""Registry logins from the files that docker, podman, skopeo and buildah write.

Sources: containers-auth.json(5), docker's cli/config (config.json, credHelpers, credsStore) and
docker-credential-helpers' protocol.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from shared.errors import CommandFailed, RestoreError
from shared.run import run

_HELPER_TIMEOUT_S: Final = 30
_TOKEN_USER: Final = "<token>"
_DOCKER_HUB: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")


@dataclass(frozen=True)
class Credentials:
    """A login and the file or program it came from; ``identity_token`` replaces user name and password."""

    username: str
    password: str
    identity_token: str | None
    origin: str

    def __repr__(self) -> str:
        return f"Credentials(username={self.username!r}, origin={self.origin!r})"


def find_credentials(
    registry: str, repository: str, *, authfile: Path | None = None, env: Mapping[str, str] = os.environ
) -> Credentials | None:
    """The login for ``registry``, None when no file has one.

    Raises RestoreError: AuthFileInvalid for a file that cannot be read, CredentialHelperFailed.
    """
    for path in [authfile] if authfile else _files(env):
        if authfile or path.is_file():
            found = _from_file(_read(path), path, registry, repository)
            if found:
                return found
    return None


def _files(env: Mapping[str, str]) -> Iterator[Path]:
    """In the order of containers-auth.json(5), docker's file last."""
    home = Path(env.get("HOME") or "/root")
    if chosen := env.get("REGISTRY_AUTH_FILE"):
        yield Path(chosen)
        return
    if runtime := env.get("XDG_RUNTIME_DIR"):
        yield Path(runtime) / "containers" / "auth.json"
    else:
        yield Path(f"/run/containers/{os.getuid()}/auth.json")
    yield Path(env.get("XDG_CONFIG_HOME") or home / ".config") / "containers" / "auth.json"
    yield Path(env.get("DOCKER_CONFIG") or home / ".docker") / "config.json"


def _read(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_bytes() or b"{}")
    except OSError as error:
        raise RestoreError("AuthFileInvalid", f"cannot read the auth file {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise RestoreError("AuthFileInvalid", f"the auth file {path} is not JSON") from error
    if not isinstance(document, dict):
        raise RestoreError("AuthFileInvalid", f"the auth file {path} is no JSON object")
    return document


def _from_file(document: dict[str, Any], path: Path, registry: str, repository: str) -> Credentials | None:
    hosts = _DOCKER_HUB if registry in _DOCKER_HUB else (registry,)
    helpers, auths = _table(document, "credHelpers"), _table(document, "auths")
    for host in hosts:
        helper = helpers.get(host)
        if isinstance(helper, str):
            return _from_helper(helper, host)
    scopes = _scopes(hosts, repository)
    written = {_without_scheme(key): (key, value) for key, value in auths.items()}
    for scope in scopes:
        key, entry = written.get(scope, ("", None))
        found = _from_entry(entry, path, key) if isinstance(entry, dict) else None
        if found:
            return found
    store = document.get("credsStore")
    if isinstance(store, str) and store:
        names = ["https://index.docker.io/v1/"] if registry in _DOCKER_HUB else [registry, f"https://{registry}"]
        for name in names:
            if found := _from_helper(store, name):
                return found
    return None


def _scopes(hosts: tuple[str, ...], repository: str) -> list[str]:
    """Keys from the most special to the plain host: containers' files may name a repository or a part of its path."""
    parts = repository.split("/")
    paths = ["/".join(parts[:length]) for length in range(len(parts), 0, -1)]
    return [f"{host}/{path}" for host in hosts for path in paths] + list(hosts)


def _without_scheme(key: str) -> str:
    """Docker also writes URLs: https://index.docker.io/v1/."""
    rest = key.partition("://")[2] or key
    rest = rest.removesuffix("/")
    return rest.removesuffix("/v1").removesuffix("/v2")


def _from_entry(entry: dict[str, Any], path: Path, key: str) -> Credentials | None:
    token = entry.get("identitytoken")
    username, password = entry.get("username"), entry.get("password")
    auth = entry.get("auth")
    if isinstance(auth, str) and auth:
        try:
            username, colon, password = base64.b64decode(auth, validate=True).decode().partition(":")
        except (binascii.Error, UnicodeDecodeError) as error:
            raise RestoreError("AuthFileInvalid", f"the auth file {path} has a damaged entry for {key}") from error
        if not colon:
            raise RestoreError("AuthFileInvalid", f"the auth file {path} has a damaged entry for {key}")
        password = password.rstrip("\0")
    if isinstance(token, str) and token:
        return Credentials("", "", token, str(path))
    if isinstance(username, str) and isinstance(password, str) and username:
        return Credentials(username, password, None, str(path))
    return None


def _from_helper(helper: str, server: str) -> Credentials | None:
    program = f"docker-credential-{helper}"
    if "/" in helper:
        raise RestoreError("CredentialHelperFailed", f"{helper!r} is no name of a credential helper")
    result = run([program, "get"], timeout_s=_HELPER_TIMEOUT_S, stdin=server.encode(), check=False)
    if result.returncode:
        if "credentials not found" in (result.stdout + result.stderr).lower():
            return None
        raise CommandFailed([program, "get"], result.returncode, result.stdout, result.stderr)
    try:
        answer = json.loads(result.stdout)
        username, secret = str(answer["Username"]), str(answer["Secret"])
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise RestoreError("CredentialHelperFailed", f"{program} answered something that is no login") from error
    if username == _TOKEN_USER:
        return Credentials("", "", secret, program)
    return Credentials(username, secret, None, program)


def _table(document: dict[str, Any], key: str) -> dict[str, Any]:
    value = document.get(key)
    return value if isinstance(value, dict) else {}
