"""Which entries of a pod's pull secrets are for an image; cases as of kubernetes' keyring_test.go."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest

from nri_plugin.cluster.logins import logins_for, matches


def secret(auths: Any, kind: str = "dockerconfigjson") -> dict[str, Any]:
    document = {"auths": auths} if kind == "dockerconfigjson" else auths
    data = base64.b64encode(json.dumps(document).encode()).decode()
    return {"type": f"kubernetes.io/{kind}", "data": {f".{kind}": data}}


def auth(user: str, password: str) -> dict[str, str]:
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


@pytest.mark.parametrize("kind", ["dockerconfigjson", "dockercfg"])
def test_both_kinds_and_both_spellings(kind: str) -> None:
    entries = {"a.example": auth("one", "p:w"), "b.example": {"username": "two", "password": "pw"}}
    assert logins_for("a.example/app:1", [secret(entries, kind)]) == [("one", "p:w")]
    assert logins_for("b.example/app:1", [secret(entries, kind)]) == [("two", "pw")]
    assert logins_for("c.example/app:1", [secret(entries, kind)]) == []


def test_the_entry_that_names_more_comes_first_and_each_login_once() -> None:
    entries = {"a.example": auth("host", "x"), "a.example/team": auth("team", "x"), "a.example/other": auth("no", "x")}
    same = {"a.example": auth("host", "x")}
    assert logins_for("a.example/team/app:1", [secret(entries), secret(same)]) == [("team", "x"), ("host", "x")]


@pytest.mark.parametrize("key", ["https://index.docker.io/v1/", "index.docker.io", "docker.io"])
def test_docker_hub_by_any_of_its_names(key: str) -> None:
    assert logins_for("busybox", [secret({key: auth("hub", "x")})]) == [("hub", "x")]


@pytest.mark.parametrize(
    ("place", "host", "repository", "does"),
    [
        ("a.example", "a.example", "app", True),
        ("a.example", "b.example", "app", False),
        ("a.example:5000", "a.example:5000", "app", True),
        ("a.example", "a.example:5000", "app", False),
        ("a.example:5000", "a.example", "app", False),
        ("*.example", "a.example", "app", True),
        ("*.example", "a.b.example", "app", False),
        ("*.*.example", "a.b.example", "app", True),
        ("a.example/team", "a.example", "team/app", True),
        ("a.example/other", "a.example", "team/app", False),
    ],
)
def test_match(place: str, host: str, repository: str, does: bool) -> None:
    assert matches(place, host, repository) is does


@pytest.mark.parametrize(
    "entry",
    [
        {"type": "Opaque", "data": {"x": "y"}},
        {"type": "kubernetes.io/dockerconfigjson"},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": "!"}},
        {"type": "kubernetes.io/dockerconfigjson", "data": {".dockerconfigjson": base64.b64encode(b"[]").decode()}},
        secret({"a.example": "text"}),
        secret({"a.example": {}}),
        secret({"a.example": {"auth": "!"}}),
        secret({"a.example": {"auth": "\u20ac"}}),
        {
            "type": "kubernetes.io/dockerconfigjson",
            "data": {".dockerconfigjson": base64.b64encode(b"[" * 100_000).decode()},
        },
        secret({"a.example": {"auth": base64.b64encode(b"no colon").decode()}}),
        secret([]),
    ],
)
def test_what_is_malformed_gives_no_login(entry: dict[str, Any]) -> None:
    good = secret({"a.example": auth("user", "x")})
    assert logins_for("a.example/app", [entry, good]) == [("user", "x")]
