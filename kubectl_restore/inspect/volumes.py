"""What of its pod a mount was, told by the path the kubelet and the runtimes use on the node.

Sources: kubernetes pkg/volume/util (pods/UID/volumes/PLUGIN~NAME/VOLUME, volume-subpaths), pkg/kubelet/kubelet_pods.go
(etc-hosts, termination log), containerd internal/cri/server (sandboxes/ID/{hostname,resolv.conf,shm}), CRI-O.
"""

from __future__ import annotations

import re
from typing import Final

_VOLUME: Final = re.compile(r"/pods/[^/]+/volumes/(?P<plugin>[^/]+)/(?P<name>[^/]+)")
_SUBPATH: Final = re.compile(r"/pods/[^/]+/volume-subpaths/(?P<name>[^/]+)/")
_PLUGINS: Final = {
    "kubernetes.io~empty-dir": "emptyDir",
    "kubernetes.io~configmap": "configMap",
    "kubernetes.io~secret": "secret",
    "kubernetes.io~projected": "projected",
    "kubernetes.io~downward-api": "downwardAPI",
}
PODMANS_MARK: Final = "/run/.containerenv"
_OF_THE_POD: Final = {
    "/etc/hosts": "the pod's hosts file",
    "/etc/hostname": "the pod's host name",
    "/etc/resolv.conf": "the pod's DNS configuration",
    "/dev/shm": "the pod's shared memory",
    "/dev/termination-log": "the termination message",
    PODMANS_MARK: "Podman's mark",
}
RENEWED: Final = ("configMap", "secret", "projected", "downwardAPI")
"""Volumes whose content the kubelet writes anew for every pod."""


def volume_of(destination: str, source: str) -> str | None:
    """``emptyDir cache``, ``the pod's hosts file``; None where the paths do not say, as for a hostPath."""
    if found := _VOLUME.search(source):
        plugin = _PLUGINS.get(found["plugin"], "persistent volume")
        return f"{plugin} {found['name']}"
    if found := _SUBPATH.search(source):
        return f"volume {found['name']}"
    return _OF_THE_POD.get(destination)
