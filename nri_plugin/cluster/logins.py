"""Registry logins out of a pod's pull secrets, chosen for an image as the kubelet chooses them.

Source: kubernetes pkg/credentialprovider/keyring.go (BasicDockerKeyring), config.go (DockerConfigEntry).
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, Final

from shared.oci import parse_reference

Login = tuple[str, str]
"""User name and password."""

_DOCKER_HUB: Final = ("docker.io", "index.docker.io", "registry-1.docker.io")
_KEYS: Final = {"kubernetes.io/dockerconfigjson": ".dockerconfigjson", "kubernetes.io/dockercfg": ".dockercfg"}


def logins_for(reference: str, secrets: Iterable[Mapping[str, Any]]) -> list[Login]:
    """Of every secret's entries that match, those that name more of the path first; each once."""
    image = parse_reference(reference)
    hosts = _DOCKER_HUB if image.registry in _DOCKER_HUB else (image.registry,)
    found = [
        (place, login)
        for secret in secrets
        for place, login in _entries(secret)
        if any(matches(place, host, image.repository) for host in hosts)
    ]
    found.sort(key=lambda each: each[0], reverse=True)
    return list(dict.fromkeys(login for _, login in found))


def matches(place: str, host: str, repository: str) -> bool:
    """Whether an entry's key is for that repository: host parts may be globs, the path is a prefix."""
    wanted, _, path = place.partition("/")
    wanted_name, _, wanted_port = wanted.partition(":")
    name, _, port = host.partition(":")
    parts, wanted_parts = name.split("."), wanted_name.split(".")
    return (
        wanted_port == port
        and len(parts) == len(wanted_parts)
        and all(map(fnmatchcase, parts, wanted_parts))
        and f"/{repository}".startswith(f"/{path}")
    )


def _entries(secret: Mapping[str, Any]) -> Iterator[tuple[str, Login]]:
    """What is malformed gives no login, as with the kubelet."""
    key = _KEYS.get(str(secret.get("type")))
    try:
        document = json.loads(base64.b64decode(secret["data"][key])) if key else {}
        auths = document["auths"] if key == ".dockerconfigjson" else document
        entries = dict(auths).items()
    except (KeyError, TypeError, ValueError, RecursionError):
        return
    for place, entry in entries:
        if isinstance(entry, dict) and (login := _login(entry)):
            yield _normal(place), login


def _normal(key: str) -> str:
    """``https://index.docker.io/v1/`` is ``index.docker.io``."""
    rest = key.partition("://")[2] or key
    host, _, path = rest.partition("/")
    for version in ("v1", "v2"):
        if path == version or path.startswith(f"{version}/"):
            path = path[len(version) + 1 :]
    return f"{host}/{path}".rstrip("/")


def _login(entry: Mapping[str, Any]) -> Login | None:
    if auth := entry.get("auth"):
        try:
            user, colon, password = base64.b64decode(str(auth)).decode().partition(":")
        except ValueError:  # no base64, or no UTF-8 in it
            return None
        return (user, password.rstrip("\0")) if colon else None
    name, secret = entry.get("username"), entry.get("password")
    return (name, secret) if isinstance(name, str) and isinstance(secret, str) and name else None
