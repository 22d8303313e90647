"""Where the cluster is and who we are there: kubeconfig files, flags, or the pod we run in, read as kubectl reads them.

Source of the rules: k8s.io/client-go tools/clientcmd (loader.go, client_config.go, overrides.go). Certificates, tokens,
exec and OIDC plugins are the ``kubernetes`` package's work.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote

from kubectl_restore.kube.errors import KubeconfigInvalid

if TYPE_CHECKING:
    from kubernetes.client import Configuration

    from kubectl_restore.kube.flags import ClusterFlags

SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_HEADER_NAME: Final = "!#$&'*+-.^_`|~"
"""Besides letters and digits (RFC 9110, token)."""
_EFFECTIVE: Final = "kubectl-restore (effective)"


@dataclass(frozen=True)
class Settings:
    configuration: Configuration
    """Of the ``kubernetes`` package: address, certificates, token."""
    namespace: str
    impersonate: tuple[tuple[str, str], ...] = ()
    """Request headers; a group a header."""
    source: str = ""
    """For errors: what was read."""


def load(flags: ClusterFlags, environ: Mapping[str, str] = os.environ) -> Settings:
    """Raises KubeconfigInvalid."""
    from kubernetes.config import ConfigException

    try:
        return _load(flags, environ)
    except ConfigException as error:
        raise KubeconfigInvalid(f"the kubeconfig cannot be used: {error}") from error


def _load(flags: ClusterFlags, environ: Mapping[str, str]) -> Settings:
    from kubernetes.client import Configuration
    from kubernetes.config import load_incluster_config

    paths = config_files(flags.kubeconfig, environ)
    if not paths and not flags.server and "KUBERNETES_SERVICE_HOST" in environ:
        configuration = Configuration()
        load_incluster_config(configuration)
        if flags.token:
            _set_token(configuration, flags.token)
        file = SERVICE_ACCOUNT / "namespace"
        namespace = flags.namespace or (file.read_text().strip() if file.exists() else "default")
        return Settings(configuration, namespace, _impersonation(flags, {}), "the pod's service account")
    if not paths and not flags.server:
        looked = environ.get("KUBECONFIG") or "~/.kube/config"
        raise KubeconfigInvalid(
            f"there is no kubeconfig ({looked}); set KUBECONFIG, or pass --kubeconfig FILE or --server URL"
        )
    return _from_files(_merged(paths), flags, ", ".join(map(str, paths)))


def config_files(chosen: Path | None, environ: Mapping[str, str]) -> list[Path]:
    """The files kubectl would read, the most important first; a missing one counts only when ``chosen``."""
    if chosen is not None:
        if not _readable(chosen):
            raise KubeconfigInvalid(f"there is no kubeconfig {chosen}; check --kubeconfig")
        return [chosen]
    listed = [Path(each) for each in environ.get("KUBECONFIG", "").split(os.pathsep) if each]
    wanted = listed or [Path(environ.get("HOME", "~")).expanduser() / ".kube" / "config"]
    return [each for each in wanted if _readable(each)]


def _readable(path: Path) -> bool:
    """A pipe is one too: ``--kubeconfig <(…)``; and so is /dev/null."""
    return path.exists() and not path.is_dir()


@dataclass(frozen=True)
class _Entry:
    content: dict[str, Any]
    path: str
    """The file it came from: relative paths in it are relative to that."""


@dataclass(frozen=True)
class _Merged:
    current: str
    contexts: dict[str, _Entry]
    clusters: dict[str, _Entry]
    users: dict[str, _Entry]


def _merged(paths: list[Path]) -> _Merged:
    """All files as one; the first file that sets a value wins."""
    merged = _Merged("", {}, {}, {})
    for path in paths:
        document = _read(path)
        if not merged.current:
            merged = replace(merged, current=str(document.get("current-context") or ""))
        for section, key in (("contexts", "context"), ("clusters", "cluster"), ("users", "user")):
            entries: dict[str, _Entry] = getattr(merged, section)
            for each in document.get(section) or []:
                entries.setdefault(str(each.get("name")), _Entry(dict(each.get(key) or {}), str(path)))
    return merged


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(path.read_text()) or {}
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise KubeconfigInvalid(f"{path} cannot be read as a kubeconfig: {_first_line(error)}") from error
    sound = isinstance(document, dict) and all(
        isinstance(document.get(section) or [], list)
        and all(isinstance(each, dict) for each in document.get(section) or [])
        for section in ("contexts", "clusters", "users")
    )
    if not sound:
        raise KubeconfigInvalid(f"{path} is not a kubeconfig: clusters, contexts and users must be lists of mappings")
    return document


def context_names(chosen: Path | None, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Contexts of the kubeconfig; raises KubeconfigInvalid."""
    return sorted(_merged(config_files(chosen, environ)).contexts)


def _from_files(merged: _Merged, flags: ClusterFlags, source: str) -> Settings:
    from kubernetes.client import Configuration
    from kubernetes.config.kube_config import ConfigNode, KubeConfigLoader

    name = flags.context or merged.current
    if name and name not in merged.contexts:
        known = ", ".join(sorted(merged.contexts)) or "none"
        raise KubeconfigInvalid(f'context "{name}" does not exist in {source or "the kubeconfig"}; there are: {known}')
    if not name and not flags.server and not flags.cluster:
        raise KubeconfigInvalid(
            f"{source} has no current context; choose one with --context or kubectl config use-context"
        )
    context = merged.contexts[name].content if name else {}
    cluster, cluster_path = _entry(merged.clusters, "cluster", flags.cluster or _get(context, "cluster"))
    user, user_path = _entry(merged.users, "user", flags.user or _get(context, "user"))
    cluster = _overridden_cluster(cluster, flags)
    if not cluster.get("server"):
        raise KubeconfigInvalid(f'the cluster of context "{name}" has no server; pass --server URL')
    user = _overridden_user(user, flags)
    # The loader knows neither overrides nor one user at another's cluster: it is given a context made of both.
    document = ConfigNode(
        "kubeconfig",
        {
            "current-context": _EFFECTIVE,
            "contexts": [{"name": _EFFECTIVE, "context": {"cluster": _EFFECTIVE, "user": _EFFECTIVE}}],
            "clusters": [ConfigNode("cluster", {"name": _EFFECTIVE, "cluster": cluster}, cluster_path)],
            "users": [ConfigNode("user", {"name": _EFFECTIVE, "user": user}, user_path)],
        },
    )
    configuration = Configuration()
    KubeConfigLoader(document, active_context=_EFFECTIVE, config_base_path=None).load_and_set(configuration)
    if "exec" in user and not configuration.api_key and not configuration.cert_file:
        command = user["exec"].get("command", "")
        raise KubeconfigInvalid(f"the kubeconfig's credential plugin {command} gave no credentials; run it by hand")
    namespace = flags.namespace or _get(context, "namespace") or "default"
    return Settings(configuration, namespace, _impersonation(flags, user), source)


def _entry(entries: dict[str, _Entry], kind: str, name: str) -> tuple[dict[str, Any], str | None]:
    """Content of the named entry and the file it came from; both empty without a name."""
    if not name:
        return {}, None
    if name not in entries:
        known = ", ".join(sorted(entries)) or "none"
        raise KubeconfigInvalid(f'the kubeconfig has no {kind} "{name}"; there are: {known}')
    return dict(entries[name].content), entries[name].path


def _overridden_cluster(cluster: dict[str, Any], flags: ClusterFlags) -> dict[str, Any]:
    if flags.server:
        address = flags.server if "://" in flags.server else f"https://{flags.server}"
        cluster["server"] = address
    if flags.certificate_authority:
        cluster.pop("certificate-authority-data", None)
        cluster["certificate-authority"] = str(flags.certificate_authority.absolute())
    if flags.insecure_skip_tls_verify:
        # Go refuses a CA together with this, and clientcmd therefore drops the kubeconfig's.
        cluster.pop("certificate-authority-data", None)
        cluster.pop("certificate-authority", None)
        cluster["insecure-skip-tls-verify"] = True
    if flags.tls_server_name:
        cluster["tls-server-name"] = flags.tls_server_name
    return cluster


def _overridden_user(user: dict[str, Any], flags: ClusterFlags) -> dict[str, Any]:
    if flags.token:
        for key in ("tokenFile", "exec", "auth-provider", "username", "password"):
            user.pop(key, None)
        user["token"] = flags.token
    if flags.client_certificate:
        user.pop("client-certificate-data", None)
        user["client-certificate"] = str(flags.client_certificate.absolute())
    if flags.client_key:
        user.pop("client-key-data", None)
        user["client-key"] = str(flags.client_key.absolute())
    return user


def _impersonation(flags: ClusterFlags, user: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    name, uid = flags.as_user or user.get("as", ""), flags.as_uid or user.get("as-uid", "")
    groups = flags.as_groups or user.get("as-groups") or []
    extra = _extra(flags.as_user_extra) if flags.as_user_extra else user.get("as-user-extra") or {}
    if not name:
        if groups or uid or flags.as_user_extra:
            raise KubeconfigInvalid("requesting uid, groups or user-extra without impersonating a user: add --as")
        return ()
    headers = [("Impersonate-User", name)] + [("Impersonate-Group", each) for each in groups]
    if uid:
        headers.append(("Impersonate-Uid", uid))
    for key, values in extra.items():
        # What may not stand in a header's name is percent-encoded (client-go transport/round_trippers.go).
        headers += [(f"Impersonate-Extra-{quote(key, safe=_HEADER_NAME)}", value) for value in values]
    return tuple(headers)


def _extra(given: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for each in given:
        key, equals, value = each.partition("=")
        if not key or not equals:
            raise KubeconfigInvalid(f"--as-user-extra {each} is not KEY=VALUE")
        found.setdefault(key, []).append(value)
    return found


def _set_token(configuration: Configuration, token: str) -> None:
    for key in ("BearerToken", "authorization"):
        configuration.api_key[key] = f"Bearer {token}"
    configuration.refresh_api_key_hook = None


def _get(context: Any, key: str) -> str:
    return str(context.get(key) or "")


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
