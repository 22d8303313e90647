"""How a registry may be reached; apart from the client, so that a build without a registry does not load one."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Access:
    """How a registry may be reached. ``plain_http``: always, never, or only when it does not speak TLS (probe)."""

    plain_http: Literal["never", "probe", "always"] = "never"
    verify_tls: bool = True
    ca_file: Path | None = None
    authfile: Path | None = None
