from __future__ import annotations

from pathlib import Path

import pytest

from nri_plugin.signature.hosts import Host, hosts_of
from shared.errors import Unavailable


def write(folder: Path, registry: str, text: str) -> Path:
    place = folder / registry
    place.mkdir()
    (place / "hosts.toml").write_text(text)
    return place


@pytest.mark.parametrize(
    ("registry", "base"),
    [
        ("registry.example", "https://registry.example/v2"),
        ("registry.example:5000", "https://registry.example:5000/v2"),
        ("docker.io", "https://registry-1.docker.io/v2"),
        ("localhost:5000", "http://localhost:5000/v2"),
        ("127.0.0.1:5000", "http://127.0.0.1:5000/v2"),
    ],
)
def test_registry_without_a_folder_is_asked_itself(tmp_path: Path, registry: str, base: str) -> None:
    assert hosts_of(registry, tmp_path / "missing") == (Host(base),)


def test_mirrors_come_first_and_the_server_last(tmp_path: Path) -> None:
    write(
        tmp_path,
        "registry.example",
        """
        server = "https://upstream.example"
        [host."http://mirror.example:5000"]
          capabilities = ["pull", "resolve"]
        [host."https://push.example"]
          capabilities = ["push"]
        [host."mirror.example/prefix"]
          override_path = true
          skip_verify = true
          [host."mirror.example/prefix".header]
            x-team = ["a", "b"]
        """,
    )
    assert hosts_of("registry.example", tmp_path) == (
        Host("http://mirror.example:5000/v2"),
        Host("https://mirror.example/prefix", verify=False, headers={"x-team": "a, b"}),
        Host("https://upstream.example/v2"),
    )


def test_certificates_are_named_from_the_folder(tmp_path: Path) -> None:
    place = write(
        tmp_path,
        "registry.example",
        'ca = "own.crt"\nserver = "https://registry.example"\n'
        '[host."https://a.example"]\nca = ["x.crt", "/etc/y.crt"]\nclient = [["c.pem", "k.pem"]]\n',
    )
    first, last = hosts_of("registry.example", tmp_path)
    assert first.ca == (place / "x.crt", Path("/etc/y.crt"))
    assert first.client == (str(place / "c.pem"), str(place / "k.pem"))
    assert last.ca == (place / "own.crt",)


def test_folder_of_the_port_then_the_default_are_looked_for(tmp_path: Path) -> None:
    write(tmp_path, "_default", '[host."https://cache.example"]\n')
    assert hosts_of("a.example:5000", tmp_path)[0].base == "https://cache.example/v2"
    assert hosts_of("a.example:5000", tmp_path)[-1].base == "https://a.example:5000/v2"
    write(tmp_path, "a.example_5000_", 'server = "https://own.example"\n')
    assert hosts_of("a.example:5000", tmp_path) == (Host("https://own.example/v2"),)


def test_folder_with_nothing_but_certificates(tmp_path: Path) -> None:
    (tmp_path / "a.example").mkdir()
    (tmp_path / "a.example/ca.crt").touch()
    assert hosts_of("a.example", tmp_path) == (Host("https://a.example/v2", (tmp_path / "a.example/ca.crt",)),)


@pytest.mark.parametrize(
    "text", ["[", "host = 3", '[host]\n"https://a" = 5\n', "server = 5", '[host."https://a"]\nclient = [[1]]']
)
def test_file_that_containerd_would_not_read_is_named(tmp_path: Path, text: str) -> None:
    write(tmp_path, "a.example", text)
    with pytest.raises(Unavailable, match=r"hosts\.toml cannot be used") as error:
        hosts_of("a.example", tmp_path)
    assert error.value.reason == "SignatureUnavailable"
