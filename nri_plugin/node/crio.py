"""How CRI-O must be configured: one drop-in file.

Source: CRI-O ``docs/crio.conf.5.md`` and ``pkg/config/config.go``: files of ``crio.conf.d`` are read in the order of
their names after ``crio.conf``, tables merge; crun is the default runtime from 1.31 on, NRI is on from 1.30 on. Since
1.30 annotations that an OCI runtime acts on, also an NRI plugin's, are dropped unless the handler allows them
(``pkg/annotations``, ``server/nri-api.go``); before, a name that CRI-O does not know there keeps it from starting.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nri_plugin.node.changes import ConfigureRefused, block
from nri_plugin.node.containerd import Edited, Reader
from nri_plugin.node.toml import Table, lines, merged, parse, table
from shared.contract import CRIU_CONFIG, HANDLER

DROP_IN = "99-nri-restore.conf"
DEFAULT_SOCKET = "/var/run/crio/crio.sock"
FILTERS_SINCE = (1, 30)
NOT_COPIED = frozenset({"platform_runtime_paths", "inherit_default_runtime"})
"""Other programs than ``runtime_path``, the first chosen by an annotation of the pod."""


STORAGE, RUN = "/var/lib/containers/storage", "/run/containers/storage"


@dataclass(frozen=True)
class Crio:
    config: Path = Path("/etc/crio/crio.conf")
    folder: Path = Path("/etc/crio/crio.conf.d")
    version: tuple[int, int] = (1, 31)
    storage: tuple[Path, ...] = (Path("/etc/containers/storage.conf"), Path("/usr/share/containers/storage.conf"))
    """The first that is there says what CRI-O's own files do not (containers-storage.conf(5))."""


def edit(runtime: Crio, text_of: Reader, *, wrapper: str, wraps: str | None = None, default: bool = False) -> Edited:
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
    copied = {key: value for key, value in table(runtimes, name).items() if key not in NOT_COPIED}
    if table(runtimes, name).get("inherit_default_runtime"):
        raise ConfigureRefused("RuntimeUnsupported", f"runtime {name} is the default one; name that with --runtime")
    kind = copied.get("runtime_type") or "oci"
    if kind != "oci":
        raise ConfigureRefused("RuntimeUnsupported", f"runtime {name} has the type {kind}; name another with --runtime")
    root = copied.get("runtime_root") or f"/run/{name}"
    entry = {**copied, "runtime_path": wrapper, "runtime_type": "oci", "runtime_root": root}
    if runtime.version >= FILTERS_SINCE:
        allowed = [str(each) for each in copied.get("allowed_annotations", []) if each != CRIU_CONFIG]
        entry["allowed_annotations"] = [*allowed, CRIU_CONFIG]
    said = table(whole, "crio", "nri")
    on = {"enable_nri": True, **({"nri_disable_connections": False} if said.get("nri_disable_connections") else {})}
    words = [*lines(["crio", "nri"], on), ""]
    if default:
        later = [each for each in sorted(runtime.folder.glob("*")) if each.name > DROP_IN]
        for path in later:
            if "default_runtime" in table(parse(text_of(path) or "", path), "crio", "runtime"):
                raise ConfigureRefused(
                    "ConfigNotUnderstood", f"{path}, which CRI-O reads last, names another default runtime; take it out"
                )
        words += [*lines(["crio", "runtime"], {"default_runtime": HANDLER}), ""]
    words += lines(["crio", "runtime", "runtimes", HANDLER], entry)
    socket = table(whole, "crio", "api").get("listen") or DEFAULT_SOCKET
    return Edited(
        {runtime.folder / DROP_IN: block("\n".join(words) + "\n")},
        str(copied.get("runtime_path") or name), str(socket), said.get("nri_listen"), default=default,
        runtime={"name": "cri-o", **places(runtime, text_of, table(whole, "crio"))},
    )  # fmt: skip


def places(runtime: Crio, text_of: Reader, section: Table) -> dict[str, str]:
    """Where images and bundles are, as far as that is not usual; raises ConfigureRefused for another driver."""
    texts = ((path, text_of(path)) for path in runtime.storage)
    shared = next((table(parse(text, path), "storage") for path, text in texts if text is not None), {})
    driver = section.get("storage_driver") or shared.get("driver") or "overlay"
    if driver != "overlay":
        raise ConfigureRefused("StorageUnsupported", f"CRI-O keeps images by the driver {driver}; only overlay is read")
    storage = section.get("imagestore") or shared.get("imagestore") or section.get("root") or shared.get("graphroot")
    run = section.get("runroot") or shared.get("runroot")
    found = {"storage": (storage, STORAGE), "storage_run": (run, RUN)}
    return {key: str(said) for key, (said, usual) in found.items() if said and said != usual}
