"""The daemon's configuration: ``/etc/nri-restore/config.toml`` as a frozen dataclass, every key optional.

``policy``, ``handler``, ``limits`` and ``cache`` are read again on SIGHUP; the other sections need a restart.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, Literal, TypeVar, get_args, get_origin, get_type_hints

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

    name: Literal["containerd", "cri-o"] = "containerd"
    socket: Path = Path("/run/containerd/containerd.sock")
    namespace: str = "k8s.io"
    snapshotter: str = "overlayfs"
    handler: str = contract.HANDLER
    registry_hosts: Path = Path("/etc/containerd/certs.d")
    """containerd's ``config_path``: how registries are reached; signatures are fetched the same way."""
    storage: Path = Path("/var/lib/containers/storage")
    """CRI-O's ``root``, or its ``imagestore``: images and layers."""
    storage_run: Path = Path("/run/containers/storage")
    """CRI-O's ``runroot``: bundles of containers."""


@dataclass(frozen=True)
class Handler:
    """How pods come under the runtime handler."""

    default: bool = False
    """Also those that name none: the handler is the runtime's default (``node configure --default-runtime``)."""


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
    """How long CreateContainer may wait for the quick checks; half a second less than the runtime waits at the most."""
    pull_s: float = 600.0
    """How long a pull of a base or checkpoint image may take."""
    record_s: float = 10.0
    """How long to wait for the runtime's own record of the container after its creation was answered."""
    old_log_bytes: int = 16 << 20
    """How much of the checkpoint's container log is put before the new one; older lines go first."""
    rootfs_diff_bytes: int = 16 << 30
    """How much the changes to the root file system may unpack to."""


@dataclass(frozen=True)
class Cache:
    """What stays of checkpoint images that no container uses (prepared root file systems and leases)."""

    unused: int = 8
    unused_age_s: float = 7 * 86400.0


WAIVABLE: Final = frozenset({"PersonalityExceeds", "RootDirectoryDiffers", "SchedulerExceeds"})
"""What a policy may let pass: it concerns the restored processes themselves or their share of the node's time, not
what they may do to others. Rights, confinement, mounts, devices and open files are never waived."""


@dataclass(frozen=True)
class Waiver:
    """A difference that pods of some namespaces may have, see WAIVABLE."""

    reason: str
    namespaces: tuple[str, ...]
    """Patterns, as in Policy."""


@dataclass(frozen=True)
class Policy:
    """Who may restore what. Patterns are shell globs: ``*``, ``?``, ``[ab]``."""

    namespaces: tuple[str, ...] = ("*",)
    """Of pods that may restore."""
    service_accounts: tuple[str, ...] = ("*",)
    """Of pods that may restore, as ``namespace/name``."""
    service_account_keys: Path = Path("/etc/nri-restore/service-accounts.jwks")
    """The keys that the cluster signs tokens with, as its API server gives them (``/openid/v1/jwks``): what a node goes
    by to know a pod's service account. Not read while every service account may restore."""
    registries: tuple[str, ...] = ("*",)
    """Where checkpoint images, and the base images of those in archive format, may come from: ``registry`` or
    ``registry/repository``, two patterns around the first slash; in that of the repository ``*`` goes over further
    slashes."""
    base_pull: Literal["IfNotPresent", "Always"] = "IfNotPresent"
    """Whether the base image of a checkpoint in archive format is pulled, with the pod's logins, also when the node has
    it: the kubelet's ``imagePullPolicy`` for what the pod does not name."""
    node_images: Literal["preloaded", "verify", "everyone"] = "preloaded"
    """For whom checkpoint images named by an annotation, and base images, are that the node has already. ``verify``: a
    pod that could pull the image, and so for a checkpoint image that is the pod's own; ``preloaded``: so too, but what
    was never pulled (imported by hand) is for everyone, and a pod's own image is the kubelet's to verify; ``everyone``:
    all are for all. The kubelet's AlwaysVerify, NeverVerifyPreloadedImages and NeverVerify."""
    signature_keys: tuple[Path, ...] = ()
    """Public keys (PEM). Once there is one, a checkpoint image needs a cosign signature by any of them."""
    image_bytes: int = 0
    """How large the layers of a checkpoint image may be together; 0: no limit."""
    memory_bytes: int = 0
    """How much memory a dump may hold; 0: no limit."""
    waive: tuple[Waiver, ...] = ()


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
class Cluster:
    """Access to the Kubernetes API, which is optional: a service account in a pod is found without being named."""

    kubeconfig: Path | None = None
    node: str = ""
    """This node's name in the cluster; otherwise $NODE_NAME, else whose credentials they are, else the host name."""


@dataclass(frozen=True)
class Config:
    nri: Nri = field(default_factory=Nri)
    runtime: Runtime = field(default_factory=Runtime)
    handler: Handler = field(default_factory=Handler)
    paths: Paths = field(default_factory=Paths)
    limits: Limits = field(default_factory=Limits)
    cache: Cache = field(default_factory=Cache)
    log: Log = field(default_factory=Log)
    metrics: Metrics = field(default_factory=Metrics)
    cluster: Cluster = field(default_factory=Cluster)
    policy: Policy = field(default_factory=Policy)

    def document(self) -> dict[str, Any]:
        """As JSON, for ``read_document``: what the session hands to the worker."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    def reloaded(self, newer: Config) -> Config:
        """What holds after SIGHUP: of ``newer`` the sections that are read again."""
        return replace(self, handler=newer.handler, limits=newer.limits, cache=newer.cache, policy=newer.policy)


Section = TypeVar("Section")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, Path) else value


def _section(kind: type[Section], values: Any, where: str) -> Section:
    if not isinstance(values, dict):
        raise ConfigInvalid("ConfigInvalid", f"{where} must be a table")
    known = get_type_hints(kind)
    names = [entry.name for entry in fields(kind)]  # type: ignore[arg-type]
    for key in values:
        if key not in names:
            raise ConfigInvalid("ConfigInvalid", f"{where} has no key {key}; it knows {', '.join(names)}")
    for entry in fields(kind):  # type: ignore[arg-type]
        if entry.name not in values and entry.default is MISSING and entry.default_factory is MISSING:
            raise ConfigInvalid("ConfigInvalid", f"{where} has no {entry.name}, which it needs")
    return kind(**{key: _value(known[key], value, f"{where}.{key}") for key, value in values.items()})


def _value(wanted: Any, value: Any, where: str) -> Any:
    if wanted == Path | None:
        return None if value is None else _value(Path, value, where)
    if get_origin(wanted) is tuple:
        if not isinstance(value, list):
            raise ConfigInvalid("ConfigInvalid", f"{where} must be a list")
        return tuple(_value(get_args(wanted)[0], each, where) for each in value)
    if get_origin(wanted) is Literal:
        if value not in get_args(wanted):
            raise ConfigInvalid("ConfigInvalid", f"{where} is {value!r}; it can be {', '.join(get_args(wanted))}")
        return value
    if is_dataclass(wanted):
        return _section(wanted, value, where)  # type: ignore[arg-type]
    if wanted is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if wanted is Path and isinstance(value, str):
        if not Path(value).is_absolute():
            raise ConfigInvalid("ConfigInvalid", f"{where} must be an absolute path, it is {value}")
        return Path(value)
    if type(value) is not wanted:
        kind_name = {str: "string", Path: "string", bool: "true or false"}.get(wanted, "number")
        raise ConfigInvalid("ConfigInvalid", f"{where} must be a {kind_name}")
    if isinstance(value, int | float) and not 0 <= value < math.inf:
        raise ConfigInvalid("ConfigInvalid", f"{where} must be a number from 0 on, it is {value}")
    return value


_SECTIONS: Final[Mapping[str, type[Any]]] = MappingProxyType(
    {
        "nri": Nri,
        "runtime": Runtime,
        "handler": Handler,
        "paths": Paths,
        "limits": Limits,
        "cache": Cache,
        "log": Log,
        "metrics": Metrics,
        "cluster": Cluster,
        "policy": Policy,
    }
)


def read_document(document: Mapping[str, Any], *, source: str) -> Config:
    """A parsed document; raises ConfigInvalid naming ``source``, the key and the reason."""
    read: dict[str, Any] = {}
    for name, values in document.items():
        if name not in _SECTIONS:
            raise ConfigInvalid("ConfigInvalid", f"{source} has no section [{name}]; it knows {', '.join(_SECTIONS)}")
        read[name] = _section(_SECTIONS[name], values, f"{source}: {name}")
    config = Config(**read)
    if re.fullmatch("[0-9]{2}", config.nri.index) is None:
        raise ConfigInvalid("ConfigInvalid", f"{source}: nri.index must be two digits, it is {config.nri.index!r}")
    for pattern in config.policy.service_accounts:
        if pattern != "*" and "/" not in pattern:
            raise ConfigInvalid(
                "ConfigInvalid", f"{source}: policy.service_accounts has {pattern!r}; write it as namespace/name"
            )
    for waiver in config.policy.waive:
        if waiver.reason not in WAIVABLE:
            raise ConfigInvalid(
                "ConfigInvalid",
                f"{source}: policy.waive cannot have the reason {waiver.reason!r}; "
                f"what can be waived is {', '.join(sorted(WAIVABLE))}",
            )
    return config


def _check_keys(config: Config, source: str) -> None:
    """Files of keys that are no keys would refuse every restore; better said now."""
    if config.policy.service_accounts != ("*",):
        path = config.policy.service_account_keys
        try:
            keys = json.loads(path.read_bytes())["keys"]
        except (OSError, ValueError, TypeError, KeyError):
            keys = None
        if not isinstance(keys, list) or not keys:
            raise ConfigInvalid(
                "ConfigInvalid",
                f"{source}: policy.service_accounts needs the cluster's keys, and {path} is no JSON Web Key Set; "
                f"write it with: kubectl get --raw /openid/v1/jwks > {path}",
            )
    for path in config.policy.signature_keys:
        try:
            key = path.read_text(errors="replace")
        except OSError as error:
            raise ConfigInvalid(
                "ConfigInvalid", f"{source}: policy.signature_keys: {path} cannot be read: {error.strerror}"
            ) from error
        if "-----BEGIN PUBLIC KEY-----" not in key:
            raise ConfigInvalid(
                "ConfigInvalid",
                f"{source}: policy.signature_keys: {path} is no public key in PEM form (BEGIN PUBLIC KEY)",
            )


def parse(text: str, *, source: str) -> Config:
    """Reads a configuration document; raises ConfigInvalid naming ``source``, the key and the reason."""
    if not text.strip():
        return Config()
    import tomllib  # half a megabyte in each process, which the defaults do not need

    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid("ConfigInvalid", f"{source} is no TOML: {error}") from error
    return read_document(document, source=source)


def load(path: Path) -> Config:
    """Reads ``path``; a missing file gives the defaults."""
    try:
        text = path.read_text()
    except FileNotFoundError:
        return Config()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigInvalid("ConfigInvalid", f"{path} cannot be read: {error}") from error
    config = parse(text, source=str(path))
    _check_keys(config, str(path))
    return config
