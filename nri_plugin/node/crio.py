"""How CRI-O must be configured: one drop-in file.

Source: CRI-O ``docs/crio.conf.5.md`` and ``pkg/config/config.go``: files of ``crio.conf.d`` are read in the order of
their names after ``crio.conf``, tables merge; crun is the default runtime from 1.31 on, NRI is on from 1.30 on.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nri_plugin.node.changes import ConfigureRefused, block
from nri_plugin.node.containerd import Edited, Reader
from nri_plugin.node.toml import Table, lines, merged, parse, table
from shared.contract import HANDLER

DROP_IN = "99-nri-restore.conf"


@dataclass(frozen=True)
class Crio:
    config: Path = Path("/etc/crio/crio.conf")
    folder: Path = Path("/etc/crio/crio.conf.d")
    version: tuple[int, int] = (1, 31)


def edit(runtime: Crio, text_of: Reader, *, wrapper: str, wraps: str | None = None) -> Edited:
    """The drop-in, options copied from the wrapped runtime; raises ConfigureRefused."""
    whole: Table = {}
    for path in [runtime.config, *sorted(runtime.folder.glob("*"))]:
        if path.name != DROP_IN and (text := text_of(path)) is not None:
            whole = merged(whole, parse(text, path))
    section = table(whole, "crio", "runtime")
    name = wraps or section.get("default_runtime") or ("crun" if runtime.version >= (1, 31) else "runc")
    runtimes = table(section, "runtimes")
    if HANDLER in runtimes:
        raise ConfigureRefused("HandlerPresent", f"a runtime {HANDLER} is already configured by hand; remove it first")
    if name not in runtimes and name not in {"runc", "crun"}:
        raise ConfigureRefused("RuntimeMissing", f"CRI-O has no runtime {name}; it has {', '.join(runtimes) or 'none'}")
    copied = table(runtimes, name)
    kind = copied.get("runtime_type") or "oci"
    if kind != "oci":
        raise ConfigureRefused("RuntimeUnsupported", f"runtime {name} has the type {kind}; name another with --runtime")
    root = copied.get("runtime_root") or f"/run/{name}"
    entry = {**copied, "runtime_path": wrapper, "runtime_type": "oci", "runtime_root": root}
    words = [*lines(["crio", "nri"], {"enable_nri": True}), "", *lines(["crio", "runtime", "runtimes", HANDLER], entry)]
    nri = table(whole, "crio", "nri").get("nri_listen")
    socket = table(whole, "crio", "api").get("listen") or "/var/run/crio/crio.sock"
    return Edited(
        {runtime.folder / DROP_IN: block("\n".join(words) + "\n")},
        str(copied.get("runtime_path") or name), str(socket), nri,
    )  # fmt: skip
