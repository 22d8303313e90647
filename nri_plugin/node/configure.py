"""``nri-restore node configure`` and ``unconfigure``: finds the runtime, edits its files, and takes it back."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from nri_plugin.node import containerd, crio
from nri_plugin.node.changes import ConfigureRefused, Record, block, read, without_block
from nri_plugin.node.processes import option, processes
from nri_plugin.node.toml import lines, parse, table
from shared.run import run

RuntimeName = Literal["auto", "containerd", "crio"]
RECORD = Path("/var/lib/nri-restore/node-configured.json")
WRAPPER_CONFIG = Path("/etc/nri-restore/restore-runc.conf")
DAEMON_CONFIG = Path("/etc/nri-restore/config.toml")
PENDING = Path("/run/nri-restore.restart")
"""There while files were changed and the runtime has not been restarted by us since; a reboot restarts it too."""
RANCHER = {
    "k3s": Path("/var/lib/rancher/k3s/agent/etc/containerd"),
    "rke2": Path("/var/lib/rancher/rke2/agent/etc/containerd"),
}


@dataclass(frozen=True)
class Place:
    """Where things are on this node; tests give others."""

    wrapper: str
    record: Path = RECORD
    wrapper_config: Path = WRAPPER_CONFIG
    daemon_config: Path = DAEMON_CONFIG


def wanted(
    place: Place,
    record: Record,
    runtime: containerd.Containerd | crio.Crio,
    wraps: str | None,
    etc: Mapping[str, str] = MappingProxyType({}),
    *,
    default: bool = False,
) -> dict[Path, str | None]:
    """What every file must be: the same whether the node is configured already or not.

    ``etc``: texts to put beside the daemon's configuration, by file name, in place of what is there. ``default``:
    whether the handler becomes the runtime's default.
    """
    if isinstance(runtime, crio.Crio):
        edited = crio.edit(runtime, record.original, wrapper=place.wrapper, wraps=wraps, default=default)
    else:
        edited = containerd.edit(runtime, record.original, wrapper=place.wrapper, wraps=wraps, default=default)
    given = {place.daemon_config.parent / name: text for name, text in etc.items()}
    result: dict[Path, str | None] = {**edited.files, **given}

    def text_of(path: Path) -> str:
        return given.get(path) or record.original(path) or ""

    # The last line of a key counts in this file.
    before = without_block(text_of(place.wrapper_config))
    result[place.wrapper_config] = before + block(f"runtime={edited.binary}\n" + "default=true\n" * edited.default)
    ours = _daemon(edited, text_of(place.daemon_config), place.daemon_config)
    if ours is not None:
        result[place.daemon_config] = ours
    for path in record.before:
        result.setdefault(path, record.original(path))
    return result


def _daemon(edited: containerd.Edited, text: str, path: Path) -> str | None:
    """The daemon's configuration where this runtime is not at the usual places; what an administrator set stays."""
    document = parse(text, path)
    added: list[str] = []
    said = table(document, "runtime")
    if missing := {key: value for key, value in edited.runtime.items() if said and said.get(key) != value}:
        keys = "; ".join(f'{key} = "{value}"' for key, value in missing.items())
        raise ConfigureRefused("DaemonConfigDiffers", f"{path} has a section [runtime]; it must say {keys}")
    runtime = dict(edited.runtime)
    if edited.socket not in {containerd.DEFAULT_SOCKET, crio.DEFAULT_SOCKET}:
        runtime["socket"] = edited.socket
    if edited.snapshotter and edited.snapshotter != "overlayfs":
        runtime["snapshotter"] = edited.snapshotter
    if runtime and "runtime" not in document:
        added += lines(["runtime"], runtime)
    if edited.nri_socket and edited.nri_socket != "/var/run/nri/nri.sock" and "nri" not in document:
        added += lines(["nri"], {"socket": edited.nri_socket})
    if edited.default and not table(document, "handler").get("default"):
        if "handler" in document:
            raise ConfigureRefused("ConfigNotUnderstood", f"{path} says handler.default = false; take that out")
        added += lines(["handler"], {"default": True})
    return text + block("\n".join(added) + "\n") if added else None


def _version(program: str) -> tuple[int, int]:
    said = run([program, "--version"], timeout_s=20).stdout
    found = re.search(r"\bv?(\d+)\.(\d+)\.\d+", said)
    if not found:
        raise ConfigureRefused("RuntimeUnknown", f"{program} --version says no version: {said.strip()[:200]!r}")
    return int(found[1]), int(found[2])


def find(name: RuntimeName, config: Path | None) -> containerd.Containerd | crio.Crio:
    """The runtime of this node; raises ConfigureRefused when none, or more than one, is there."""
    engines = [each for each in ("containerd", "crio") if processes(each)] if name == "auto" else [name]
    if len(engines) != 1:
        there = " and ".join(engines) or "neither containerd nor CRI-O"
        raise ConfigureRefused("RuntimeUnclear", f"{there} runs on this node; say which to configure")
    if engines[0] == "crio":
        words = next(iter(processes("crio")), ["crio"])
        main = config or Path(option(words, "--config", "-c") or crio.Crio.config)
        folder = Path(option(words, "--config-dir", "-d") or crio.Crio.folder)
        return crio.Crio(main, folder, _version(words[0]))
    words = next((each for each in processes("containerd") if option(each, "--config", "-c")), ["containerd"])
    main = config or Path(option(words, "--config", "-c") or containerd.Containerd.config)
    template = None
    for folder in RANCHER.values():
        if main.parent == folder:
            template = folder / ("config-v3.toml.tmpl" if _version(words[0]) >= (2, 0) else "config.toml.tmpl")
    return containerd.Containerd(main, _version(words[0]), template)


def restart() -> str:
    """Restarts the runtime's service, with which running pods go on, and ours where it runs; returns its name."""
    run(["systemctl", "try-restart", "nri-restore"], timeout_s=60, check=False)
    for unit in ("containerd", "crio", "k3s", "k3s-agent", "rke2-server", "rke2-agent"):
        if run(["systemctl", "is-active", "--quiet", unit], timeout_s=20, check=False).returncode == 0:
            run(["systemctl", "restart", unit], timeout_s=180)
            return unit
    raise ConfigureRefused(
        "ServiceUnknown", "no service of a container runtime is active here; restart the runtime by hand"
    )


def texts_in(folder: Path) -> dict[str, str]:
    """Every file of a folder, such as a mounted ConfigMap, by name; raises ConfigureRefused."""
    try:
        found = [each for each in folder.iterdir() if each.is_file() and not each.name.startswith(".")]
    except OSError as error:
        raise ConfigureRefused("ConfigUnreadable", f"{folder} cannot be read: {error.strerror}") from error
    return {each.name: read(each) or "" for each in found}
