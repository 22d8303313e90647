"""Debian's kubectl, unpacked into the cache: the machine's own may be any version, or missing."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Final

from shared.run import run
from tests.e2e.node.apt import certificates, read_apt
from tests.e2e.node.places import cache, made_once

SUITE: Final = "trixie"
_KEYRING: Final = "/usr/share/keyrings/debian-archive-keyring.gpg"


def kubectl() -> Path:
    """Path of the program; downloaded first when it is not cached."""
    return made_once(cache() / "kubectl" / SUITE, _unpack) / "usr/bin/kubectl"


def _unpack(place: Path) -> None:
    apt = read_apt()
    folder = Path(tempfile.mkdtemp(prefix=f".{SUITE}-", dir=place.parent))
    try:
        folder.chmod(0o755)
        for each in ("lists/partial", "archives/partial", "root"):
            (folder / each).mkdir(parents=True)
        (folder / "status").touch()
        (folder / "ca.crt").write_bytes(certificates())
        (folder / "sources.list").write_text(f"deb [signed-by={_KEYRING}] {apt.mirror} {SUITE} main\n")
        # The machine's own lists, sources and architecture stay what they are.
        settings = {
            "Dir::State::lists": folder / "lists",
            "Dir::State::status": folder / "status",
            "Dir::Cache": folder,
            "Dir::Etc::SourceList": folder / "sources.list",
            "Dir::Etc::SourceParts": "/dev/null",
            "Acquire::https::CaInfo": folder / "ca.crt",
            "Acquire::Check-Valid-Until": "false",
            "Acquire::Languages": "none",
            "APT::Sandbox::User": "root",
        }
        words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
        run(["apt-get", *words, "update", "-q"], timeout_s=300)
        fetch = 'cd "$0" && exec apt-get "$@" -q download kubectl'
        run(["sh", "-c", fetch, folder, *words], timeout_s=300)
        (package,) = folder.glob("kubectl_*.deb")
        run(["dpkg-deb", "-x", package, folder / "root"], timeout_s=300)
        (folder / "root").rename(place)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    print(kubectl())
