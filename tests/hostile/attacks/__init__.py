"""Every attack there is: importing this package registers them."""

from tests.hostile.attacks import (
    archives,
    credentials,
    devices,
    files,
    granted,
    kernel_objects,
    metadata,
    mounts,
    namespaces,
    restorer,
    seccomp,
    structure,
    tar_headers,
    unix_sockets,
)

__all__ = [
    "archives",
    "credentials",
    "devices",
    "files",
    "granted",
    "kernel_objects",
    "metadata",
    "mounts",
    "namespaces",
    "restorer",
    "seccomp",
    "structure",
    "tar_headers",
    "unix_sockets",
]
