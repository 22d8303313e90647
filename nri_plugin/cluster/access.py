"""How to reach the API server: a kubeconfig such as the kubelet's, else the service account of the daemon's own pod.

Source: client-go tools/clientcmd/api/v1/types.go, rest/config.go InClusterConfig.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from nri_plugin.config import Cluster
from shared.errors import RestoreError

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
VARIABLE: Final = "NRI_RESTORE_SERVICE_ACCOUNT"
"""Environment variable with another name of that folder: for a daemon that left its pod's mount namespace."""


@dataclass(frozen=True)
class Access:
    """Paths are of PEM files; None is not given."""

    server: str
    ca: Path | None
    token: str | None = None
    certificate: Path | None = None
    key: Path | None = None


def possible(settings: Cluster, environ: Mapping[str, str] = os.environ) -> bool:
    """Whether there is any way to the API server; reads nothing, and is cheap enough for the worker."""
    return settings.kubeconfig is not None or _in_pod(environ)


def find(settings: Cluster, folder: Path, environ: Mapping[str, str] = os.environ) -> Access:
    """The way to the API server; what a kubeconfig has inline is written into ``folder``.

    Raises RestoreError("KubeconfigInvalid") with file, field and reason.
    """
    if settings.kubeconfig is not None:
        return _from_kubeconfig(settings.kubeconfig, folder)
    if not _in_pod(environ):
        raise RestoreError("KubeconfigInvalid", "there is no kubeconfig; set cluster.kubeconfig in the configuration")
    host, port = environ["KUBERNETES_SERVICE_HOST"], environ.get("KUBERNETES_SERVICE_PORT", "443")
    place = f"[{host}]" if ":" in host else host
    account = _service_account(environ)
    return Access(f"https://{place}:{port}", account / "ca.crt", token=_read(account / "token"))


def _in_pod(environ: Mapping[str, str]) -> bool:
    return "KUBERNETES_SERVICE_HOST" in environ and (_service_account(environ) / "token").exists()


def _service_account(environ: Mapping[str, str]) -> Path:
    return Path(environ.get(VARIABLE) or SERVICE_ACCOUNT)


def _from_kubeconfig(path: Path, folder: Path) -> Access:
    import yaml

    def wrong(what: str) -> RestoreError:
        return RestoreError("KubeconfigInvalid", f"{path}: {what}")

    try:
        document = yaml.safe_load(_read(path))
    except yaml.YAMLError as error:
        raise wrong(f"it is no YAML: {error}".splitlines()[0]) from error

    def named(kind: str, name: object) -> Mapping[str, Any]:
        listed = document.get(f"{kind}s") if isinstance(document, dict) else None
        for each in listed if isinstance(listed, list) else []:
            if isinstance(each, dict) and each.get("name") == name and isinstance(each.get(kind), dict):
                found: Mapping[str, Any] = each[kind]
                return found
        raise wrong(f"there is no {kind} {name}")

    context = named("context", document.get("current-context") if isinstance(document, dict) else None)
    cluster, user = named("cluster", context.get("cluster")), named("user", context.get("user"))

    def file(values: Mapping[str, Any], key: str) -> Path | None:
        if inline := values.get(f"{key}-data"):
            target = folder / key
            try:
                target.write_bytes(base64.b64decode(str(inline), validate=True))
            except binascii.Error as error:
                raise wrong(f"{key}-data is no base64") from error
            return target
        return path.parent / str(values[key]) if values.get(key) else None

    token = user.get("token") or (_read(path.parent / user["tokenFile"]) if user.get("tokenFile") else None)
    access = Access(
        server=str(cluster.get("server") or ""),
        ca=file(cluster, "certificate-authority"),
        token=str(token).strip() if token else None,
        certificate=file(user, "client-certificate"),
        key=file(user, "client-key"),
    )
    if not access.server.startswith(("https://", "http://")):
        raise wrong(f"the cluster's server is {access.server!r}, which is no URL")
    if access.token is None and access.certificate is None:
        raise wrong("the user has neither a token nor a client certificate; programs that get one are not run")
    return access


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except (OSError, UnicodeDecodeError) as error:
        raise RestoreError("KubeconfigInvalid", f"{path} cannot be read: {error}") from error
