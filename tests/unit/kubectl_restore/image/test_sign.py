"""What is said before and after cosign runs; that it signs is shown in tests/e2e/test_policy.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from kubectl_restore.image.access import Access
from kubectl_restore.image.sign import signer
from shared.errors import RestoreError

IMAGE = "registry.example/app@sha256:" + "a" * 64
COSIGN = """#!/bin/sh
if [ "$2" = --help ]; then printf '%s\\n' '{flags}'; exit; fi
echo "$@" > {folder}/words
echo "$COSIGN_PASSWORD" > {folder}/password
[ -z "$DOCKER_CONFIG" ] || cp "$DOCKER_CONFIG/config.json" {folder}/logins
{then}
"""


@pytest.fixture(autouse=True)
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    for name in ("COSIGN_PASSWORD", "DOCKER_CONFIG"):
        monkeypatch.delenv(name, raising=False)


def cosign(folder: Path, *flags: str, then: str = "") -> Path:
    """A cosign that notes how it is called, and a key."""
    program = folder / "cosign"
    lines = "\n".join(f"    {flag} string   help" for flag in flags)
    program.write_text(COSIGN.format(flags=lines, folder=folder, then=then))
    program.chmod(0o755)
    key = folder / "cosign.key"
    key.write_text("-----BEGIN PRIVATE KEY-----\n")
    return key


def test_without_cosign_the_sentence_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RestoreError, match="install it, or leave the option out") as error:
        signer("cosign.key")
    assert error.value.reason == "CosignMissing"


def test_key_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    cosign(tmp_path)
    with pytest.raises(RestoreError, match=r"/nowhere\.key cannot be read: No such file") as error:
        signer("/nowhere.key")
    assert error.value.reason == "SignKeyMissing"


def test_password_is_from_the_environment_where_there_is_no_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = cosign(tmp_path)
    key.write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    with pytest.raises(RestoreError, match="COSIGN_PASSWORD") as error:
        signer(str(key))
    assert error.value.reason == "SignPasswordMissing"
    monkeypatch.setenv("COSIGN_PASSWORD", "secret")
    signer(str(key)).sign(IMAGE, Access())
    assert (tmp_path / "password").read_text() == "secret\n"


def test_password_is_asked_for_at_a_terminal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    key = cosign(tmp_path)
    key.write_text("-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\n")
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("getpass.getpass", lambda prompt: f"answer to {prompt}")
    signer(str(key)).sign(IMAGE, Access())
    assert (tmp_path / "password").read_text() == f"answer to Password of {key}: \n"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--key", "--tlog-upload"), ["--tlog-upload=false"]),
        (("--key", "--tlog-upload", "--trusted-root"), ["--tlog-upload=false"]),
        (("--key", "--signing-config", "--trusted-root"), ["--signing-config", "--trusted-root"]),
        (("--key", "--signing-config", "--trusted-root", "--offline"), ["--offline"]),
    ],
)
def test_every_version_is_kept_from_other_services(tmp_path: Path, flags: tuple[str, ...], words: list[str]) -> None:
    signer(str(cosign(tmp_path, *flags))).sign(IMAGE, Access())
    said = (tmp_path / "words").read_text().split()
    assert said[:2] + said[-1:] == ["sign", "--yes", IMAGE]
    assert [word for word in said if word.startswith("--")][2:] == words


def test_registry_is_reached_as_the_build_reached_it(tmp_path: Path) -> None:
    logins = tmp_path / "auth.json"
    logins.write_text('{"auths": {}}')
    access = Access("always", verify_tls=False, ca_file=Path("/ca.crt"), authfile=logins)
    signer(str(cosign(tmp_path, "--tlog-upload"))).sign(IMAGE, access)
    said = (tmp_path / "words").read_text()
    assert "--allow-http-registry --allow-insecure-registry --registry-cacert /ca.crt" in said
    assert (tmp_path / "logins").read_text() == logins.read_text()


def test_refusal_of_cosign_is_one_sentence(tmp_path: Path) -> None:
    fails = "echo 'Error: signing [x]: reading key: decrypt: decryption failed' >&2; echo more >&2; exit 1"
    with pytest.raises(
        RestoreError, match="is pushed but not signed: cosign says decrypt: decryption failed;"
    ) as error:
        signer(str(cosign(tmp_path, then=fails))).sign(IMAGE, Access())
    assert error.value.reason == "SignFailed"
