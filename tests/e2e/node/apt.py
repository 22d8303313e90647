"""What the machine's own apt configuration says about reaching Debian: mirror, proxies, certificates."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from shared.errors import Unavailable
from shared.run import run

CA_BUNDLE = Path("/etc/ssl/certs/ca-certificates.crt")


@dataclass(frozen=True)
class Apt:
    mirror: str
    """Address of a full Debian mirror, without a slash at its end."""
    options: str
    """Lines of apt.conf: proxies, retries, time checks; certificate files are named under ROOT_CA."""
    proxy: dict[str, str]
    """Environment for programs that do not read apt's configuration (debootstrap)."""


ROOT_CA = "/etc/apt/build-machine-ca.crt"
"""Where a root under construction finds the build machine's certificate authorities."""

_OPTION = re.compile(r"^Acquire::(?:(?:https?|ftp)::\S+|Retries|ForceIPv[46]|Check-\S+) \".*\";$")


def mirror_of(repositories: list[str]) -> str:
    """The first repository that is a full Debian archive rather than security, backports of a vendor or a third party.

    Raises Unavailable("NoDebianMirror").
    """
    for address in repositories:
        if re.search(r"/debian/?$", address):
            return address.rstrip("/")
    raise Unavailable(
        "NoDebianMirror",
        "apt knows no Debian mirror (an address that ends in /debian); name one in NRI_RESTORE_DEBIAN_MIRROR",
    )


def read_apt() -> Apt:
    """Asks apt-get and apt-config; NRI_RESTORE_DEBIAN_MIRROR overrides the mirror."""
    chosen = os.environ.get("NRI_RESTORE_DEBIAN_MIRROR")
    if chosen:
        mirror = chosen.rstrip("/")
    else:
        listed = run(
            ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages"], timeout_s=300
        ).stdout.split()
        mirror = mirror_of(listed)
    dump = run(["apt-config", "dump"], timeout_s=300).stdout.splitlines()
    options = [line for line in dump if _OPTION.match(line) and "::CaInfo" not in line]
    options.append(f'Acquire::https::CaInfo "{ROOT_CA}";')
    proxy = {
        key: value for key, value in os.environ.items() if key.lower() in {"http_proxy", "https_proxy", "no_proxy"}
    }
    for line in dump:
        if found := re.match(r'^Acquire::(https?)::Proxy "(.+)";$', line):
            proxy.setdefault(f"{found[1]}_proxy", found[2])
    return Apt(mirror, "\n".join(options) + "\n", proxy)


def certificates() -> bytes:
    """The build machine's certificate authorities, one PEM bundle; empty when it has none."""
    configured = run(["apt-config", "shell", "CA", "Acquire::https::CaInfo"], timeout_s=300).stdout
    found = re.search(r"CA='(.+)'", configured)
    bundle = Path(found[1]) if found else CA_BUNDLE
    return bundle.read_bytes() if bundle.exists() else b""
