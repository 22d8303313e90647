"""How containerd must be configured: NRI on, and a runtime handler that runs restore-runc.

Sources: containerd ``cmd/containerd/server/config/config.go`` (imports, merging, versions) and ``docs/cri/config.md``
(section names) at v1.7.24, v2.1.9, v2.2.0 and v2.3.0; k3s and RKE2 documentation, "Configuring containerd".
"""

from __future__ import annotations

import glob
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from nri_plugin.node.changes import ConfigureRefused, block
from nri_plugin.node.toml import Table, lines, merged, parse, table, with_marked_value, with_value
from shared.contract import HANDLER

DROP_IN = "nri-restore.toml"
SHIM = "io.containerd.runc.v2"
CRI = {1: "cri", 2: "io.containerd.grpc.v1.cri", 3: "io.containerd.cri.v1.runtime", 4: "io.containerd.cri.v1.runtime"}
NRI = {1: "nri", 2: "io.containerd.nri.v1.nri", 3: "io.containerd.nri.v1.nri", 4: "io.containerd.nri.v1.nri"}
DEFAULT = "default_runtime_name"
DEFAULT_SOCKET = "/run/containerd/containerd.sock"

Reader = Callable[[Path], str | None]
"""The text of a file without our edits."""


@dataclass(frozen=True)
class Containerd:
    """A containerd on this node."""

    config: Path = Path("/etc/containerd/config.toml")
    version: tuple[int, int] = (1, 7)
    template: Path | None = None
    """k3s and RKE2 write ``config`` at every start from this file, which may not exist yet."""


@dataclass(frozen=True)
class Edited:
    """What files become, the wrapped runtime's binary, and where the runtime is reached."""

    files: dict[Path, str]
    binary: str
    socket: str
    nri_socket: str | None = None
    snapshotter: str | None = None
    default: bool = False
    """Whether the handler became the runtime's default."""
    runtime: Mapping[str, str] = field(default_factory=dict)
    """What the daemon's ``[runtime]`` must say."""


@dataclass(frozen=True)
class Loaded:
    version: int
    texts: dict[Path, str]
    """In containerd's order; later ones win."""
    whole: Table
    imports: tuple[str, ...]


def _imports(parent: Path, patterns: list[str]) -> list[Path]:
    found: list[Path] = []
    for pattern in patterns:
        absolute = str(parent.parent / pattern)
        found += sorted(Path(each) for each in glob.glob(absolute)) if "*" in pattern else [Path(absolute)]  # noqa: PTH207
    return found


def load(runtime: Containerd, text_of: Reader) -> Loaded:
    """Everything containerd reads, merged as this version does: 1.x replaces a plugin's section as a whole."""
    texts: dict[Path, str] = {}
    whole: Table = {}
    patterns: list[str] = []
    pending = [runtime.config]
    while pending:
        path = pending.pop(0)
        if path in texts or (path.name == DROP_IN and text_of(path) is None):
            continue
        text = text_of(path)
        if text is None:
            if path == runtime.config:
                break
            raise ConfigureRefused("ImportMissing", f"{path}, which containerd's configuration imports, is not there")
        texts[path] = text
        document = parse(text, path)
        if path == runtime.config:
            patterns = [str(each) for each in document.get("imports", [])]
        pending += _imports(path, [str(each) for each in document.get("imports", [])])
        plugins = table(document, "plugins")
        if runtime.version < (2, 0):
            whole = {**merged(whole, document), "plugins": {**table(whole, "plugins"), **plugins}}
        else:
            whole = merged(whole, document)
    main = texts.get(runtime.config)
    newest = {True: 2, False: 3}[runtime.version < (2, 0)] if runtime.version < (2, 3) else 4
    version = newest if main is None else parse(main, runtime.config).get("version", 1)
    if not isinstance(version, int) or not 1 <= version <= newest:
        name = ".".join(map(str, runtime.version))
        raise ConfigureRefused(
            "ConfigVersionUnknown",
            f"{runtime.config} has version {version}; containerd {name} reads 1 to {newest}",
        )
    others = {
        parse(text, path).get("version", 1) for path, text in texts.items() if table(parse(text, path), "plugins")
    }
    if len(others - {version}) > 0:
        raise ConfigureRefused(
            "ConfigVersionsDiffer",
            f"{runtime.config} and its imports differ in version; bring all to {version} (containerd config migrate)",
        )
    return Loaded(version, texts, whole, tuple(patterns))


def handler(loaded: Loaded, wrapper: str, wraps: str | None) -> tuple[Table, str]:
    """The handler's table, copied from the runtime it wraps, and that runtime's binary."""
    cri = table(loaded.whole, "plugins", CRI[loaded.version], "containerd")
    for key in ("default_runtime", "untrusted_workload_runtime"):
        if table(cri, key):
            raise ConfigureRefused(
                "ConfigOutdated", f"containerd.{key} is set, which newer versions do not read; name it under runtimes"
            )
    name = wraps or cri.get(DEFAULT) or "runc"
    runtimes = table(cri, "runtimes")
    if name not in runtimes and name != "runc":
        raise ConfigureRefused(
            "RuntimeMissing", f"containerd has no runtime {name}; it has {', '.join(runtimes) or 'none'}"
        )
    if HANDLER in runtimes:
        raise ConfigureRefused(
            "HandlerPresent", f"a runtime {HANDLER} is already configured by hand; remove it, then configure again"
        )
    copied = table(runtimes, name)
    shim = copied.get("runtime_type") or SHIM
    if shim != SHIM:
        raise ConfigureRefused(
            "RuntimeUnsupported",
            f"runtime {name} has the type {shim}; only {SHIM} runs runc or crun: name one with --runtime",
        )
    options = table(copied, "options")
    binary = str(options.get("BinaryName") or copied.get("runtime_engine") or "runc")
    plain = {key: value for key, value in copied.items() if key not in {"runtime_engine", "options"}}
    passed = [str(each) for each in plain.pop("pod_annotations", [])]
    mine = f"{HANDLER}/*"
    return {
        **plain,
        "runtime_type": SHIM,
        "pod_annotations": passed if mine in passed else [*passed, mine],
        "options": {**options, "BinaryName": wrapper},
    }, binary


def edit(
    runtime: Containerd, text_of: Reader, *, wrapper: str, wraps: str | None = None, default: bool = False
) -> Edited:
    """What the files must become; raises ConfigureRefused with the reason, and then nothing may be written."""
    loaded = load(runtime, text_of)
    off = {str(each) for each in loaded.whole.get("disabled_plugins", [])}
    for plugin in off & {"cri", CRI[loaded.version], NRI[loaded.version], "nri"}:
        raise ConfigureRefused(
            "PluginDisabled",
            f"disabled_plugins in containerd's configuration turns {plugin} off; take it out of that list",
        )
    entry, binary = handler(loaded, wrapper, wraps)
    texts = dict(loaded.texts)
    nri = NRI[loaded.version]
    said = table(loaded.whole, "plugins", nri)
    keys = ["plugins", CRI[loaded.version], "containerd", "runtimes", HANDLER]
    added = "\n".join(lines(keys, entry)) + "\n"
    if nri not in table(loaded.whole, "plugins") and runtime.version < (2, 0):
        added = "\n".join(lines(["plugins", nri], {"disable": False})) + "\n\n" + added
    elif said.get("disable", runtime.version < (2, 0)):
        # Where it is said: in a file that only adds, false does not win over true (mergo takes it for "not set").
        for path, text in texts.items():
            if nri in table(parse(text, path), "plugins"):
                texts[path] = with_value(text, ["plugins", nri, "disable"], False)
    folder = _drop_in_folder(runtime, loaded)
    section = ["plugins", CRI[loaded.version], "containerd"]
    if default and runtime.template is not None and folder is None:
        raise ConfigureRefused(
            "DefaultRuntimeFixed",
            f"{runtime.config} is generated and names the default runtime already; configure without "
            "--default-runtime, or give k3s a version that imports config-v3.toml.d",
        )
    default_added = "\n".join(lines(section, {DEFAULT: HANDLER})) + "\n\n" if default else ""
    if runtime.template is not None and folder is None:
        if said.get("disable"):
            raise ConfigureRefused(
                "NriDisabled", f"{runtime.config}, which is generated, turns NRI off; turn it on in {runtime.template}"
            )
        template = text_of(runtime.template)
        base = '{{ template "base" . }}\n' if template is None else template
        files = {runtime.template: f"{_ended(base)}\n{block(added)}"}
    elif folder is not None:
        if runtime.template is not None and texts != loaded.texts:
            raise ConfigureRefused("NriDisabled", f"{runtime.config}, which is generated, turns NRI off")
        files = {path: text for path, text in texts.items() if text != loaded.texts[path]}
        files[folder / DROP_IN] = f"version = {loaded.version}\n\n{block(default_added + added)}"
    else:
        target = runtime.config
        if runtime.version < (2, 0):
            # The last file with the section is the only one of which 1.x takes it.
            for path, text in texts.items():
                if CRI[loaded.version] in table(parse(text, path), "plugins"):
                    target = path
        base = texts.get(target, f"version = {loaded.version}\n")
        if default and (marked := with_marked_value(base, [*section, DEFAULT], HANDLER)) is not None:
            base, default_added = marked, ""
        texts[target] = f"{_ended(base)}\n{block(default_added + added)}"
        files = {path: text for path, text in texts.items() if text != loaded.texts.get(path)}
    if runtime.template is None:
        _prove(runtime, text_of, files, entry, loaded.version, default=default)
    snapshotter = table(loaded.whole, "plugins", CRI[loaded.version], "containerd").get("snapshotter")
    if loaded.version > 2:
        snapshotter = table(loaded.whole, "plugins", "io.containerd.cri.v1.images").get("snapshotter")
    socket = table(loaded.whole, "plugins", "io.containerd.server.v1.grpc").get("address")
    socket = socket or table(loaded.whole, "grpc").get("address") or DEFAULT_SOCKET
    return Edited(files, binary, str(socket), said.get("socket_path"), snapshotter, default)


def _ended(text: str) -> str:
    return text if text.endswith("\n") or not text else f"{text}\n"


def _drop_in_folder(runtime: Containerd, loaded: Loaded) -> Path | None:
    """Where a file of ours is imported from; None where it would replace a section (1.x) or has to be migrated."""
    if runtime.version < (2, 0) or loaded.version < 3:
        return None
    for pattern in loaded.imports:
        path = runtime.config.parent / pattern
        if path.name == "*.toml" and "*" not in str(path.parent):
            return path.parent
    return None


def _prove(
    runtime: Containerd, text_of: Reader, files: dict[Path, str], entry: Table, version: int, *, default: bool
) -> None:
    """Reads the edited files as containerd will; raises ConfigureRefused unless all that was meant is in force."""
    new_imports = {path for path in files if path.name == DROP_IN}

    def edited(path: Path) -> str | None:
        return files.get(path) or text_of(path)

    read = load(runtime, edited)
    whole = read.whole
    for path in new_imports:
        whole = merged(whole, parse(files[path], path))
        for later in read.texts:
            if later.parent == path.parent and later.name > path.name:
                whole = merged(whole, parse(read.texts[later], later))
    plugins = table(whole, "plugins")
    nri_on = not table(plugins, NRI[version]).get("disable", runtime.version < (2, 0))
    cri = table(plugins, CRI[version], "containerd")
    found = table(cri, "runtimes", HANDLER)
    if not nri_on or found != entry or (default and cri.get(DEFAULT) != HANDLER):
        raise ConfigureRefused(
            "ConfigNotUnderstood", "the edit would not be in force: another file that containerd imports overrides it"
        )
