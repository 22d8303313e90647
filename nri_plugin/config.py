"""The daemon's configuration: ``/etc/nri-restore/config.toml`` as a frozen dataclass, every key optional."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

from shared import contract
from shared.errors import RestoreError

DEFAULT_PATH = Path("/etc/nri-restore/config.toml")


class ConfigInvalid(RestoreError):
    """The configuration file cannot be used; the sentence names file, key and reason."""


@dataclass(frozen=True)
class Nri:
    """How the daemon registers with the runtime."""

    socket: Path = Path("/var/run/nri/nri.sock")
    name: str = "nri-restore"
    index: str = "90"
    """Two digits; plugins are asked in the order of their index, so we see what others adjusted."""


@dataclass(frozen=True)
class Runtime:
    """The container runtime and the handler that runs restore-runc."""

    socket: Path = Path("/run/containerd/containerd.sock")
    namespace: str = "k8s.io"
    snapshotter: str = "overlayfs"
    handler: str = contract.HANDLER


@dataclass(frozen=True)
class Paths:
    """Where plans (tmpfs), state that outlives a reboot, and restore logs live."""

    plans: Path = Path("/run/nri-restore")
    state: Path = Path("/var/lib/nri-restore")
    logs: Path = Path("/var/log/nri-restore")


@dataclass(frozen=True)
class Limits:
    """Bounds, in seconds and bytes."""

    answer_s: float = 0.5
    """How long CreateContainer may wait for the quick checks; the runtime drops a plugin after 2 s."""
    pull_s: float = 600.0
    """How long a pull of a base or checkpoint image may take."""
    record_s: float = 10.0
    """How long to wait for the runtime's own record of the container after its creation was answered."""
    old_log_bytes: int = 16 << 20
    """How much of the checkpoint's container log is put before the new one; older lines go first."""
    rootfs_diff_bytes: int = 16 << 30
    """How much the changes to the root file system may unpack to."""
    restore_log_bytes: int = 1 << 20
    """How much of CRIU's restore.log is kept."""


@dataclass(frozen=True)
class Cache:
    """What stays of checkpoint images that no container uses (prepared root file systems and leases)."""

    unused: int = 8
    unused_age_s: float = 7 * 86400.0


@dataclass(frozen=True)
class Log:
    """What the daemon writes to stderr, which is the journal under systemd."""

    format: Literal["text", "json"] = "text"
    level: Literal["info", "debug", "warning", "error"] = "info"


@dataclass(frozen=True)
class Metrics:
    """Where Prometheus can ask, besides the socket ``metrics.sock`` among the plans."""

    port: int = 0
    """On 127.0.0.1; 0: none."""


@dataclass(frozen=True)
class Config:
    nri: Nri = field(default_factory=Nri)
    runtime: Runtime = field(default_factory=Runtime)
    paths: Paths = field(default_factory=Paths)
    limits: Limits = field(default_factory=Limits)
    cache: Cache = field(default_factory=Cache)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)


Section = TypeVar("Section")


def _section(kind: type[Section], values: Any, where: str) -> Section:
    if not isinstance(values, dict):
        raise ConfigInvalid("ConfigInvalid", f"{where} must be a table")
    known = get_type_hints(kind)
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    arguments: dict[str, Any] = {}
    for key, value in values.items():
        if key not in names:
            raise ConfigInvalid("ConfigInvalid", f"{where} has no key {key}; it knows {', '.join(names)}")
        wanted = known[key]
        if get_origin(wanted) is Literal:
            if value not in get_args(wanted):
                words = ", ".join(get_args(wanted))
                raise ConfigInvalid("ConfigInvalid", f"{where}.{key} is {value!r}; it can be {words}")
            arguments[key] = value
            continue
        if wanted is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if wanted is Path and isinstance(value, str):
            value = Path(value)
            if not value.is_absolute():
                raise ConfigInvalid("ConfigInvalid", f"{where}.{key} must be an absolute path, it is {value}")
        if type(value) is not wanted and not (wanted is Path and isinstance(value, Path)):
            kind_name = "string" if wanted in (str, Path) else "number"
            raise ConfigInvalid("ConfigInvalid", f"{where}.{key} must be a {kind_name}")
        if isinstance(value, int | float) and not 0 <= value < math.inf:
            raise ConfigInvalid("ConfigInvalid", f"{where}.{key} must be a number from 0 on, it is {value}")
        arguments[key] = value
    return kind(**arguments)


def parse(text: str, *, source: str) -> Config:
    """Reads a configuration document; raises ConfigInvalid naming ``source``, the key and the reason."""
    if not text.strip():
        return Config()
    import tomllib  # half a megabyte in each process, which the defaults do not need

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid("ConfigInvalid", f"{source} is no TOML: {error}") from error
    sections: dict[str, type[Any]] = {
        "nri": Nri, "runtime": Runtime, "paths": Paths, "limits": Limits, "cache": Cache, "log": Log,
        "metrics": Metrics,
    }  # fmt: skip
    read: dict[str, Any] = {}
    for name, values in document.items():
        if name not in sections:
            raise ConfigInvalid("ConfigInvalid", f"{source} has no section [{name}]; it knows {', '.join(sections)}")
        read[name] = _section(sections[name], values, f"{source}: {name}")
    config = Config(**read)
    if re.fullmatch("[0-9]{2}", config.nri.index) is None:
        raise ConfigInvalid("ConfigInvalid", f"{source}: nri.index must be two digits, it is {config.nri.index!r}")
    return config


def load(path: Path) -> Config:
    """Reads ``path``; a missing file gives the defaults."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid("ConfigInvalid", f"{path} cannot be read: {error}") from error
    return parse(text, source=str(path))
