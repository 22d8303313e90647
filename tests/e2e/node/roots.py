"""Base roots: one Debian tree per node flavour, built once and cached; nodes are overlays on them."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal, get_args

from shared.run import run
from tests.e2e.node.apt import ROOT_CA, certificates, read_apt
from tests.e2e.node.places import cache, made_once

Flavour = Literal["containerd-1.7", "containerd-2.1"]
FLAVOURS: Final[tuple[Flavour, ...]] = get_args(Flavour)

BUILD_LIMIT_S: Final = 900

_COMMON: Final = (
    "busybox-static",
    "ca-certificates",
    "containerd",
    "containernetworking-plugins",
    "cosign",
    "crun",
    "docker-registry",
    "iproute2",
    "iptables",
    "iputils-ping",
    "libcriu2",
    "nftables",
    "procps",
    "python3",
    "runc",
    "systemd",
    "util-linux",
)


@dataclass(frozen=True)
class Recipe:
    suite: str
    packages: tuple[str, ...]
    newer_suite: str = ""
    """Second suite, pinned so low that only ``newer_packages`` and what they need come from it."""
    newer_packages: tuple[str, ...] = ()
    revision: int = 1
    """Raised when the way of building changes."""


RECIPES: Final[dict[Flavour, Recipe]] = {
    # criu 4.1 of trixie does not restore what newer criu dumped (`vdso: ELF header magic mismatch`).
    "containerd-1.7": Recipe("trixie", (*_COMMON, "buildah", "netavark", "podman", "rpm"), "forky", ("criu",)),
    "containerd-2.1": Recipe("forky", (*_COMMON, "criu")),
}

_DPKG_CONFIGURATION: Final = """\
force-unsafe-io
path-exclude=/usr/share/doc/*
path-exclude=/usr/share/man/*
path-exclude=/usr/share/locale/*
"""

# A testing suite's Release file may have expired: it is renewed only while the suite moves.
_APT_CONFIGURATION: Final = """\
APT::Install-Recommends "false";
Acquire::Check-Valid-Until "false";
Acquire::Languages "none";
"""


def location(flavour: Flavour) -> Path:
    """Where the base root of this flavour lies once it is built; the name changes with the recipe."""
    recipe = json.dumps([asdict(RECIPES[flavour]), _DPKG_CONFIGURATION, _APT_CONFIGURATION])
    return cache() / "roots" / f"{flavour}-{hashlib.sha256(recipe.encode()).hexdigest()[:12]}"


def base_root(flavour: Flavour) -> Path:
    """The base root of this flavour, built first when it is not cached (about a minute)."""
    return made_once(location(flavour), partial(_build, RECIPES[flavour]))


def _build(recipe: Recipe, place: Path) -> None:
    print(f"building the base root {place.name} from Debian {recipe.suite} …", file=sys.stderr, flush=True)
    began = time.monotonic()
    apt = read_apt()
    for leftover in place.parent.glob(f".{place.name}-*"):
        shutil.rmtree(leftover)
    root = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        root.chmod(0o755)
        script = recipe.suite if Path("/usr/share/debootstrap/scripts", recipe.suite).exists() else "sid"
        environment = {**os.environ, **apt.proxy, "DEBIAN_FRONTEND": "noninteractive", "LC_ALL": "C.UTF-8"}
        run(
            ["debootstrap", "--variant=minbase", recipe.suite, root, apt.mirror, script],
            timeout_s=BUILD_LIMIT_S,
            env=environment,
        )
        _configure(root, recipe, apt.mirror, apt.options)
        install = [["update", "-q"], ["install", "-y", "-q", *recipe.packages]]
        if recipe.newer_packages:
            install.append(["install", "-y", "-q", "-t", recipe.newer_suite, *recipe.newer_packages])
        for words in install:
            _inside(root, ["apt-get", *words], environment)
        _strip(root)
        root.rename(place)
    except BaseException:
        shutil.rmtree(root, ignore_errors=True)
        raise
    print(f"built {place.name} in {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)


def _configure(root: Path, recipe: Recipe, mirror: str, options: str) -> None:
    etc = root / "etc"
    suites = [recipe.suite, recipe.newer_suite] if recipe.newer_suite else [recipe.suite]
    (etc / "apt/sources.list").write_text("".join(f"deb {mirror} {suite} main\n" for suite in suites))
    if recipe.newer_suite:
        pin = f"Package: *\nPin: release n={recipe.newer_suite}\nPin-Priority: 100\n"
        (etc / "apt/preferences.d/newer").write_text(pin)
    (etc / "apt/apt.conf.d/90node").write_text(options + _APT_CONFIGURATION)
    (etc / "dpkg/dpkg.cfg.d/90node").write_text(_DPKG_CONFIGURATION)
    (root / ROOT_CA.lstrip("/")).write_bytes(certificates())
    shutil.copyfile("/etc/resolv.conf", etc / "resolv.conf")
    policy = root / "usr/sbin/policy-rc.d"
    policy.write_text("#!/bin/sh\nexit 101\n")
    policy.chmod(0o755)


def _inside(root: Path, argv: list[str], environment: dict[str, str]) -> None:
    # The PID namespace takes everything with it that a package's scripts leave running.
    enter = 'mount -t proc proc "$0/proc" && exec chroot "$0" "$@"'
    run(
        ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", enter, root, *argv],
        timeout_s=BUILD_LIMIT_S,
        env={**environment, "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
    )


def _strip(root: Path) -> None:
    for folder in (
        "var/cache/apt",
        "var/lib/apt/lists",
        "usr/share/doc",
        "usr/share/man",
        "usr/share/locale",
        "var/log",
    ):
        shutil.rmtree(root / folder)
        (root / folder).mkdir()
    for file in (ROOT_CA.lstrip("/"), "etc/apt/apt.conf.d/90node", "etc/resolv.conf", "etc/hostname"):
        (root / file).unlink(missing_ok=True)
    for folder in ("opt/nri-restore/checkout", "opt/nri-restore/dependencies", "etc/nri-restore"):
        (root / folder).mkdir(parents=True)


def main() -> None:
    """Builds every base root; ``make setup`` calls it so that the first test does not wait."""
    for flavour in FLAVOURS:
        print(base_root(flavour))


if __name__ == "__main__":
    main()
