"""Signs a pushed image with cosign, the user's own: with a key alone, so that nothing is asked but the registry.

Sources: ``cosign sign --help`` of 2.5.0 and 3.1.1, both run; sigstore/cosign CHANGELOG.md for what differs.
"""

from __future__ import annotations

import getpass
import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from kubectl_restore.image.access import Access
from shared.errors import CommandFailed, RestoreError
from shared.run import run

SIGN_LIMIT_S: Final = 180.0
PASSWORD: Final = "COSIGN_PASSWORD"

# What cosign 3 would otherwise fetch from the internet: which services to use, and whom to trust. Here: nothing.
_NO_SERVICES: Final = {
    "mediaType": "application/vnd.dev.sigstore.signingconfig.v0.2+json",
    "rekorTlogConfig": {},
    "tsaConfig": {},
}
_NO_TRUST: Final = {"mediaType": "application/vnd.dev.sigstore.trustedroot+json;version=0.1"}


@dataclass(frozen=True)
class Signer:
    """A cosign that is there, and the key to sign with."""

    program: str
    key: str
    """A file, or what else cosign takes as ``--key``: the address of a key in a KMS."""
    password: str | None
    flags: frozenset[str]
    """What ``cosign sign`` of this version knows."""

    def sign(self, image: str, access: Access) -> None:
        """Signs ``image`` (registry/repository@digest) and pushes the signature; raises RestoreError("SignFailed")."""
        with tempfile.TemporaryDirectory() as folder:
            environment = dict(os.environ)
            if self.password is not None:
                environment[PASSWORD] = self.password
            if access.authfile:
                (Path(folder) / "config.json").write_bytes(access.authfile.read_bytes())
                environment["DOCKER_CONFIG"] = folder
            words = [self.program, "sign", "--yes", "--key", self.key, *self._offline(Path(folder)), *_reach(access)]
            try:
                run([*words, image], timeout_s=SIGN_LIMIT_S, env=environment)
            except CommandFailed as error:
                raise RestoreError(
                    "SignFailed",
                    f"{image} is pushed but not signed: cosign says {_said(error.stderr)}; "
                    "put that right and sign it: cosign sign --key KEY IMAGE@DIGEST",
                ) from error

    def _offline(self, folder: Path) -> list[str]:
        """Words that keep it from any other service: cosign 3 wants a file for that, earlier ones have an option."""
        if "--offline" in self.flags:
            return ["--offline"]
        if "--trusted-root" not in self.flags or "--tlog-upload" in self.flags:
            return ["--tlog-upload=false"]
        services, trust = folder / "services.json", folder / "trust.json"
        services.write_text(json.dumps(_NO_SERVICES))
        trust.write_text(json.dumps(_NO_TRUST))
        return ["--signing-config", str(services), "--trusted-root", str(trust)]


def signer(key: str) -> Signer:
    """The cosign in the PATH; asks for the key's password where that is needed and there is a terminal.

    Raises RestoreError: CosignMissing, SignKeyMissing, SignPasswordMissing.
    """
    program = shutil.which("cosign")
    if program is None:
        raise RestoreError(
            "CosignMissing",
            "--sign-key needs the program cosign, which is not in the PATH; install it, or leave the option out and "
            "sign the pushed image elsewhere: cosign sign --key KEY IMAGE@DIGEST",
        )
    password = None
    if "://" not in key:
        try:
            encrypted = "ENCRYPTED" in Path(key).read_text(errors="replace")
        except OSError as error:
            raise RestoreError("SignKeyMissing", f"the key {key} cannot be read: {error.strerror}") from error
        if encrypted and PASSWORD not in os.environ:
            if not sys.stdin.isatty():
                raise RestoreError(
                    "SignPasswordMissing",
                    f"the key {key} has a password and there is no terminal to ask for it; put it into {PASSWORD}",
                )
            password = getpass.getpass(f"Password of {key}: ")
    help_text = run([program, "sign", "--help"], timeout_s=30).stdout
    return Signer(
        program, key, password, frozenset(re.findall(r"^ +(?:-\w, )?(--[a-z0-9-]+)", help_text, re.MULTILINE))
    )


def _reach(access: Access) -> list[str]:
    words = []
    if access.plain_http != "never":
        words.append("--allow-http-registry")
    if not access.verify_tls:
        words.append("--allow-insecure-registry")
    if access.ca_file:
        words += ["--registry-cacert", str(access.ca_file)]
    return words


def _said(stderr: str) -> str:
    """Its reason, without the steps that led there; it says everything twice."""
    lines = [line for line in stderr.splitlines() if line.startswith("Error: ")] or stderr.splitlines()[-1:]
    return ": ".join(lines[0].removeprefix("Error: ").split(": ")[-2:]) if lines else "nothing"
