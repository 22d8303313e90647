"""The real cosign, of the versions that the nodes' Debian releases have: 2.5 signs by a tag, 3.1 by a bundle."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from shared.run import run
from tests.e2e.node.roots import Flavour, base_root


@dataclass(frozen=True)
class Cosign:
    flavour: Flavour
    folder: Path
    """For keys, and a ``bin`` for the PATH."""

    @cached_property
    def environment(self) -> dict[str, str]:
        """With this cosign in the PATH, and the password of its keys."""
        programs = self.folder / "bin"
        programs.mkdir(parents=True, exist_ok=True)
        (programs / "cosign").symlink_to(base_root(self.flavour) / "usr/bin/cosign")
        return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "COSIGN_PASSWORD": "secret"}

    def key(self, name: str) -> Path:
        """A new key pair: the private half, with the public one beside it (``.pub``)."""
        prefix = self.folder / name
        run(["cosign", "generate-key-pair", "--output-key-prefix", prefix], timeout_s=120, env=self.environment)
        return prefix.with_suffix(".key")
