"""Pods by their runtime handler, as the CRI lists them: of containerd and CRI-O alike."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import grpc

from nri_plugin.containerd import cri_pb2 as cri
from nri_plugin.containerd.client import QUICK_S, failure
from nri_plugin.containerd.rpc import Method, connect, unary

LIST = Method("/runtime.v1.RuntimeService/ListPodSandbox", cri.ListPodSandboxRequest, cri.ListPodSandboxResponse)


def pods_under(handler: str, socket: Path) -> list[str]:
    """``namespace/name`` of pods whose sandbox is up; raises Unavailable: RuntimeAway, RuntimeSlow, RuntimeError."""
    ready = cri.PodSandboxStateValue(state=cri.SANDBOX_READY)
    request = cri.ListPodSandboxRequest(filter=cri.PodSandboxFilter(state=ready))
    with closing(connect(socket)) as channel:
        try:
            listed = unary(channel, LIST)(request, timeout_s=QUICK_S).items
        except grpc.RpcError as error:
            raise failure(error, "list pods") from error
    ours = (each.metadata for each in listed if each.runtime_handler == handler)
    return sorted(f"{each.namespace}/{each.name}" for each in ours)
