"""How containerd reaches a registry: ``hosts.toml`` below its ``config_path``, read the way containerd reads it.

Source: containerd docs/hosts.md, core/remotes/docker/config/hosts.go.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from shared.errors import Unavailable

_DOCKER_HUB: Final = "registry-1.docker.io"


@dataclass(frozen=True)
class Host:
    """One place to ask, ``base`` without a slash at its end and with ``/v2`` where the API has it."""

    base: str
    ca: tuple[Path, ...] = ()
    """Trusted besides the system's."""
    client: tuple[str, str] | None = None
    """Certificate and key that the host wants to see."""
    verify: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)


def hosts_of(registry: str, folder: Path) -> tuple[Host, ...]:
    """Where to ask for images of ``registry``, first to last; raises Unavailable("SignatureUnavailable")."""
    place = _directory(registry, folder)
    if place is None:
        return (_plain(registry),)
    file = place / "hosts.toml"
    if not file.is_file():
        return (_plain(registry, tuple(sorted(place.glob("*.crt")))),)
    try:
        document = tomllib.loads(file.read_text())
        listed = document.get("host", {})
        hosts = [
            _host(address, settings, place)
            for address, settings in listed.items()
            if {"pull", "resolve"} & set(settings.get("capabilities", ("pull", "resolve")))
        ]
        server = document.get("server")
        if server not in listed:
            hosts.append(_host(server, document, place) if server else _plain(registry))
    except (OSError, ValueError, TypeError, AttributeError, LookupError) as error:
        raise Unavailable("SignatureUnavailable", f"{file} cannot be used to reach {registry}: {error}") from error
    return tuple(hosts)


def _directory(registry: str, folder: Path) -> Path | None:
    host, colon, port = registry.partition(":")
    names = [registry, f"{host}_{port}_"] if colon else [registry]
    return next((folder / name for name in (*names, "_default") if (folder / name).is_dir()), None)


def _plain(registry: str, ca: tuple[Path, ...] = ()) -> Host:
    name = urlsplit(f"//{registry}").hostname or ""
    scheme = "http" if name == "localhost" or name.startswith("127.") or name == "::1" else "https"
    return Host(f"{scheme}://{_DOCKER_HUB if registry == 'docker.io' else registry}/v2", ca)


def _host(address: str, settings: Mapping[str, Any], place: Path) -> Host:
    base = (address if "://" in address else f"https://{address}").rstrip("/")
    if not settings.get("override_path") and not base.endswith("/v2"):
        base += "/v2"
    client = settings.get("client") or []
    pair = client[0] if isinstance(client, list) and client else client
    cert, key = (pair, pair) if isinstance(pair, str) else (pair[0], pair[1]) if pair else ("", "")
    return Host(
        base,
        tuple(place / each for each in _texts(settings.get("ca"))),
        (str(place / cert), str(place / key)) if cert else None,
        not settings.get("skip_verify", False),
        {name: ", ".join(_texts(value)) for name, value in settings.get("header", {}).items()},
    )


def _texts(value: object) -> list[str]:
    if isinstance(value, str):
        return [value]
    return [str(each) for each in value] if isinstance(value, list) else []
