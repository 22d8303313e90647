"""What the node's administrator lets be restored: ``[policy]`` of the configuration, asked before anything is read.

A RuntimeClass or an admission policy keeps pods from asking; this is the node's own word, whatever the cluster admits.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from nri_plugin.config import Policy
from nri_plugin.restore.images import StoredImage
from nri_plugin.restore.request import RestoreRequest
from nri_plugin.restore.service_account import service_account_of
from shared.errors import Refused, RestoreError
from shared.member_names import quoted
from shared.oci import is_digest, parse_reference

IN_THE_CONFIGURATION = "the node's administrator can allow it in [policy] of nri-restore's configuration"


def check_pod(policy: Policy, request: RestoreRequest) -> None:
    """Raises Refused: NamespaceNotAllowed, ServiceAccountNotAllowed, ServiceAccountUnknown."""
    if not _any(policy.namespaces, request.pod_namespace):
        raise Refused(
            "NamespaceNotAllowed",
            f"pods of the namespace {request.pod_namespace} may not restore checkpoints on this node; "
            f"{IN_THE_CONFIGURATION} (namespaces)",
        )
    if policy.service_accounts != ("*",):
        account = f"{request.pod_namespace}/{service_account_of(request, policy.service_account_keys)}"
        if not _any(policy.service_accounts, account):
            raise Refused(
                "ServiceAccountNotAllowed",
                f"pods with the service account {account} may not restore checkpoints on this node; "
                f"{IN_THE_CONFIGURATION} (service_accounts)",
            )


def check_registry(policy: Policy, names: Sequence[str]) -> None:
    """Raises Refused("RegistryNotAllowed") unless one of the image's ``names`` on the node is from an allowed place.

    An image without such a name (one that was only imported, known by its id) is from nowhere, which only ``*`` allows.
    """
    _check_source(policy, "checkpoint image", names)


def check_base_registry(policy: Policy, names: Sequence[str]) -> None:
    """The same for the base image that an archive image is restored on."""
    _check_source(policy, "checkpoint's base image", names)


def check_image_size(policy: Policy, image: StoredImage) -> None:
    """Raises Refused("TooLargeForPolicy")."""
    _check_size("the checkpoint image's layers have", image.layer_bytes, policy.image_bytes, "image_bytes")


def check_memory_size(policy: Policy, memory_bytes: int) -> None:
    """Raises Refused("TooLargeForPolicy")."""
    _check_size("the checkpoint holds memory of", memory_bytes, policy.memory_bytes, "memory_bytes")


def waived(policy: Policy, request: RestoreRequest) -> frozenset[str]:
    """Reasons that are no refusal for this pod."""
    return frozenset(each.reason for each in policy.waive if _any(each.namespaces, request.pod_namespace))


def _check_source(policy: Policy, what: str, names: Sequence[str]) -> None:
    if policy.registries != ("*",) and not any(from_allowed(policy, name) for name in names):
        raise Refused(
            "RegistryNotAllowed",
            f"the {what} {quoted(names[0]) if names else 'without a name'} is from a registry or repository that this "
            f"node does not restore from; {IN_THE_CONFIGURATION} (registries)",
        )


def _check_size(what: str, size: int, limit: int, key: str) -> None:
    if limit and size > limit:
        raise Refused(
            "TooLargeForPolicy",
            f"{what} {size} bytes, this node restores up to {limit}; {IN_THE_CONFIGURATION} ({key})",
        )


def from_allowed(policy: Policy, name: str) -> bool:
    """Whether the registry and repository of an image's name are allowed."""
    if is_digest(name):  # an image's id, which reads like docker.io/library/sha256 with a tag
        return False
    try:
        reference = parse_reference(name)
    except RestoreError:
        return False
    for pattern in policy.registries:
        registry, slash, repository = pattern.partition("/")
        if fnmatchcase(reference.registry, registry) and (not slash or fnmatchcase(reference.repository, repository)):
            return True
    return False


def _any(patterns: Iterable[str], text: str) -> bool:
    return any(fnmatchcase(text, pattern) for pattern in patterns)
