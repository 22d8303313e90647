"""Pulling images the way the kubelet does: through the CRI's image service, with the runtime's registry settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from threading import Event

import grpc

from nri_plugin.containerd.client import Containerd, failure
from nri_plugin.containerd.rpc import code_of, details_of
from shared.errors import Unavailable

PULL_PATH = "/runtime.v1.ImageService/PullImage"
POLL_S = 0.1
"""How soon a cancelled pull ends."""


Login = tuple[str, str]
"""User name and password."""
Logins = Callable[[str], Sequence[Login]]
"""User names and passwords to try for an image reference, asked for only when it is to be pulled."""


def pull(
    containerd: Containerd,
    reference: str,
    *,
    timeout_s: float,
    cancelled: Event,
    logins: Logins = lambda reference: (),
) -> Login | None:
    """Pulls ``reference`` with each login in turn, without one where there is none, as the kubelet does.

    Returns the login that the registry took; None where it was asked without one. Setting ``cancelled`` ends the pull.
    Raises Unavailable: ImagePullFailed with the registry's own reason (to the last login), RuntimeAway, Cancelled.
    """
    found = logins(reference)
    for login in found[:-1]:
        try:
            _pull(containerd, reference, login, timeout_s, cancelled)
            return login
        except Unavailable as error:
            if error.reason != "ImagePullFailed":
                raise
    last = found[-1] if found else None
    _pull(containerd, reference, last, timeout_s, cancelled)
    return last


def _pull(containerd: Containerd, reference: str, login: Login | None, timeout_s: float, cancelled: Event) -> None:
    from nri_plugin.containerd import cri_pb2 as cri  # half a megabyte that a node which never pulls need not hold

    send = containerd.channel.unary_unary(
        PULL_PATH,
        request_serializer=cri.PullImageRequest.SerializeToString,
        response_deserializer=cri.PullImageResponse.FromString,
    )
    auth = cri.AuthConfig(username=login[0], password=login[1]) if login else None
    call = send.future(cri.PullImageRequest(image=cri.ImageSpec(image=reference), auth=auth), timeout=timeout_s)
    finished = Event()
    call.add_done_callback(lambda _: finished.set())
    while not finished.wait(POLL_S):
        if cancelled.is_set():
            call.cancel()
            raise Unavailable("Cancelled", f"the pull of {reference} was stopped with the container that wanted it")
    error = call.exception()
    if isinstance(error, grpc.RpcError):
        if code_of(error) == grpc.StatusCode.DEADLINE_EXCEEDED:
            raise Unavailable("ImagePullFailed", f"{reference} was not pulled within {timeout_s:g} s") from error
        if code_of(error) == grpc.StatusCode.UNAVAILABLE and "failed to pull" not in details_of(error):
            raise failure(error, f"pull {reference}") from error
        reason = reason_of(details_of(error), reference)
        raise Unavailable("ImagePullFailed", f"{reference} cannot be pulled: {reason}") from error


_WRAPPED = re.compile(
    r"""
      rpc\ error:\ code\ =\ \w+\ desc\ =\s
    | failed\ to\ pull\ and\ unpack\ image\ "[^"]*":\s
    | failed\ to\ resolve\ (?:reference\ "[^"]*"|image):\s
    | failed\ to\ do\ request:\s
    | (?:Get|Head|Post)\ "[^"]*":\s
    """,
    re.VERBOSE,
)
_REPLACED = (
    (re.compile(r"unexpected status from \w+ request to \S+: "), "the registry answered "),
    (re.compile(r"failed to extract layer .*?: mount callback failed on \S+: "), "a layer cannot be unpacked: "),
    (re.compile(r"read udp \S+: read: "), ""),
)


def reason_of(details: str, reference: str) -> str:
    """What went wrong, without containerd's chain of wrapped errors, which repeats the reference up to four times.

    Source: containerd core/remotes/docker, internal/cri/server/images/image_pull.go, 1.7 and 2.1.
    """
    reason = _WRAPPED.sub("", details).removesuffix(": unknown")
    for pattern, words in _REPLACED:
        reason = pattern.sub(words, reason)
    if reason == f"{reference}: not found":
        return "the registry has no such image"
    return reason.replace(f"{reference}: ", "").replace(reference, "it") or "containerd gave no reason"
