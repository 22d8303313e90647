"""The runtime's CRI, called as the kubelet calls it: one typed method a call, each with a deadline."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Final, TypeVar

import grpc
from google.protobuf.message import Message

from nri_plugin.containerd import cri_pb2 as cri
from nri_plugin.containerd.rpc import Method, code_of, connect, details_of, unary

DEADLINE_S: Final = 120.0
"""The kubelet's runtimeRequestTimeout default (kubernetes pkg/kubelet/apis/config/v1beta1/defaults.go)."""

Request = TypeVar("Request", bound=Message)
Reply = TypeVar("Reply", bound=Message)


class CriError(Exception):
    """A CRI call failed; the kubelet puts ``details`` into the pod's events."""

    def __init__(self, method: str, code: grpc.StatusCode, details: str) -> None:
        super().__init__(f"{method}: {code.name}: {details}")
        self.method = method
        self.code = code
        self.details = details


class Cri:
    def __init__(self, socket: Path, *, deadline_s: float = DEADLINE_S) -> None:
        self.deadline_s = deadline_s
        self._channel = connect(socket)

    def close(self) -> None:
        self._channel.close()

    def _call(
        self, name: str, request: Request, reply: type[Reply], deadline_s: float | None, service: str = "RuntimeService"
    ) -> Reply:
        method = Method(f"/runtime.v1.{service}/{name}", type(request), reply)
        try:
            return unary(self._channel, method)(
                request, timeout_s=self.deadline_s if deadline_s is None else deadline_s
            )
        except grpc.RpcError as error:
            code = code_of(error)
            if code is grpc.StatusCode.CANCELLED:  # containerd is told the deadline, and hung up first
                code = grpc.StatusCode.DEADLINE_EXCEEDED
            raise CriError(name, code, details_of(error)) from error

    # ---- runtime ----

    def version(self, *, deadline_s: float | None = None) -> cri.VersionResponse:
        return self._call("Version", cri.VersionRequest(version="v1"), cri.VersionResponse, deadline_s)

    def status(self, *, verbose: bool = False, deadline_s: float | None = None) -> cri.StatusResponse:
        return self._call("Status", cri.StatusRequest(verbose=verbose), cri.StatusResponse, deadline_s)

    # ---- pod sandboxes ----

    def run_pod_sandbox(
        self, config: cri.PodSandboxConfig, runtime_handler: str = "", *, deadline_s: float | None = None
    ) -> str:
        request = cri.RunPodSandboxRequest(config=config, runtime_handler=runtime_handler)
        # The kubelet gives this call twice its limit: pulling the pause image may be part of it.
        limit = 2 * self.deadline_s if deadline_s is None else deadline_s
        return self._call("RunPodSandbox", request, cri.RunPodSandboxResponse, limit).pod_sandbox_id

    def stop_pod_sandbox(self, sandbox: str, *, deadline_s: float | None = None) -> None:
        request = cri.StopPodSandboxRequest(pod_sandbox_id=sandbox)
        self._call("StopPodSandbox", request, cri.StopPodSandboxResponse, deadline_s)

    def remove_pod_sandbox(self, sandbox: str, *, deadline_s: float | None = None) -> None:
        request = cri.RemovePodSandboxRequest(pod_sandbox_id=sandbox)
        self._call("RemovePodSandbox", request, cri.RemovePodSandboxResponse, deadline_s)

    def pod_sandbox_status(
        self, sandbox: str, *, verbose: bool = False, deadline_s: float | None = None
    ) -> cri.PodSandboxStatusResponse:
        request = cri.PodSandboxStatusRequest(pod_sandbox_id=sandbox, verbose=verbose)
        return self._call("PodSandboxStatus", request, cri.PodSandboxStatusResponse, deadline_s)

    def list_pod_sandboxes(self, *, deadline_s: float | None = None) -> list[cri.PodSandbox]:
        reply = self._call("ListPodSandbox", cri.ListPodSandboxRequest(), cri.ListPodSandboxResponse, deadline_s)
        return list(reply.items)

    # ---- containers ----

    def create_container(
        self,
        sandbox: str,
        config: cri.ContainerConfig,
        sandbox_config: cri.PodSandboxConfig,
        *,
        deadline_s: float | None = None,
    ) -> str:
        request = cri.CreateContainerRequest(pod_sandbox_id=sandbox, config=config, sandbox_config=sandbox_config)
        return self._call("CreateContainer", request, cri.CreateContainerResponse, deadline_s).container_id

    def start_container(self, container: str, *, deadline_s: float | None = None) -> None:
        request = cri.StartContainerRequest(container_id=container)
        self._call("StartContainer", request, cri.StartContainerResponse, deadline_s)

    def stop_container(self, container: str, grace_s: int = 30, *, deadline_s: float | None = None) -> None:
        # As the kubelet: its own limit on top of the grace period.
        limit = self.deadline_s + grace_s if deadline_s is None else deadline_s
        request = cri.StopContainerRequest(container_id=container, timeout=grace_s)
        self._call("StopContainer", request, cri.StopContainerResponse, limit)

    def remove_container(self, container: str, *, deadline_s: float | None = None) -> None:
        request = cri.RemoveContainerRequest(container_id=container)
        self._call("RemoveContainer", request, cri.RemoveContainerResponse, deadline_s)

    def list_containers(self, sandbox: str = "", *, deadline_s: float | None = None) -> list[cri.Container]:
        request = cri.ListContainersRequest(filter=cri.ContainerFilter(pod_sandbox_id=sandbox))
        return list(self._call("ListContainers", request, cri.ListContainersResponse, deadline_s).containers)

    def container_status(
        self, container: str, *, verbose: bool = False, deadline_s: float | None = None
    ) -> cri.ContainerStatusResponse:
        request = cri.ContainerStatusRequest(container_id=container, verbose=verbose)
        return self._call("ContainerStatus", request, cri.ContainerStatusResponse, deadline_s)

    def container_stats(self, container: str, *, deadline_s: float | None = None) -> cri.ContainerStats:
        request = cri.ContainerStatsRequest(container_id=container)
        return self._call("ContainerStats", request, cri.ContainerStatsResponse, deadline_s).stats

    def update_container_resources(
        self, container: str, resources: cri.LinuxContainerResources, *, deadline_s: float | None = None
    ) -> None:
        request = cri.UpdateContainerResourcesRequest(container_id=container, linux=resources)
        self._call("UpdateContainerResources", request, cri.UpdateContainerResourcesResponse, deadline_s)

    def exec_sync(
        self, container: str, command: list[str], timeout_s: int = 60, *, deadline_s: float | None = None
    ) -> cri.ExecSyncResponse:
        request = cri.ExecSyncRequest(container_id=container, cmd=command, timeout=timeout_s)
        limit = self.deadline_s + timeout_s if deadline_s is None else deadline_s
        return self._call("ExecSync", request, cri.ExecSyncResponse, limit)

    def reopen_container_log(self, container: str, *, deadline_s: float | None = None) -> None:
        request = cri.ReopenContainerLogRequest(container_id=container)
        self._call("ReopenContainerLog", request, cri.ReopenContainerLogResponse, deadline_s)

    def checkpoint_container(self, container: str, location: str, *, deadline_s: float | None = None) -> None:
        """Writes the checkpoint archive to the node's path ``location``; the container goes on."""
        request = cri.CheckpointContainerRequest(container_id=container, location=location)
        self._call("CheckpointContainer", request, cri.CheckpointContainerResponse, deadline_s)

    # ---- images ----

    def pull_image(
        self,
        image: str,
        sandbox_config: cri.PodSandboxConfig | None = None,
        auth: tuple[str, str] | None = None,
        *,
        deadline_s: float | None = None,
    ) -> str:
        """Pulls and returns the image's id; ``auth`` is user and password."""
        request = cri.PullImageRequest(
            image=cri.ImageSpec(image=image, user_specified_image=image), sandbox_config=sandbox_config
        )
        if auth:
            encoded = base64.b64encode(":".join(auth).encode()).decode()
            request.auth.CopyFrom(cri.AuthConfig(username=auth[0], password=auth[1], auth=encoded))
        return self._call("PullImage", request, cri.PullImageResponse, deadline_s, "ImageService").image_ref

    def image_status(self, image: str, *, deadline_s: float | None = None) -> cri.Image | None:
        """None when the image is not on the node."""
        request = cri.ImageStatusRequest(image=cri.ImageSpec(image=image))
        reply = self._call("ImageStatus", request, cri.ImageStatusResponse, deadline_s, "ImageService")
        return reply.image if reply.HasField("image") else None

    def list_images(self, *, deadline_s: float | None = None) -> list[cri.Image]:
        reply = self._call("ListImages", cri.ListImagesRequest(), cri.ListImagesResponse, deadline_s, "ImageService")
        return list(reply.images)

    def remove_image(self, image: str, *, deadline_s: float | None = None) -> None:
        request = cri.RemoveImageRequest(image=cri.ImageSpec(image=image))
        self._call("RemoveImage", request, cri.RemoveImageResponse, deadline_s, "ImageService")

    def image_fs_usage(self, *, deadline_s: float | None = None) -> list[cri.FilesystemUsage]:
        reply = self._call("ImageFsInfo", cri.ImageFsInfoRequest(), cri.ImageFsInfoResponse, deadline_s, "ImageService")
        return list(reply.image_filesystems)
