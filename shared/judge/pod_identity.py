"""Which parts of a container's identity the pod itself fixed, and which the runtime looked up in the image.

The runtime takes the group of a user, and the groups beside it, from the image's /etc/passwd and /etc/group where the
pod does not name them. A checkpoint image of the archive format has neither file, so the live spec says group 0 there,
while the dump has what the base image said. An image decides over these anyway, so such a difference grants nothing.
Source: containerd pkg/oci/spec_opts.go (WithUserID, WithAdditionalGIDs), internal/cri/server/container_create_linux.go.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

_STRICT = 1
"""cri-api SupplementalGroupsPolicy: Merge = 0, Strict = 1."""


@dataclass(frozen=True, slots=True)
class PodIdentity:
    """True where the image has no say."""

    group_fixed: bool = True
    """The pod sets runAsGroup."""
    groups_fixed: bool = True
    """The pod sets supplementalGroupsPolicy: Strict."""


def pod_identity(cri_metadata: bytes) -> PodIdentity:
    """Reads the CRI's record of the container; what cannot be read counts as fixed by the pod.

    Source: containerd internal/cri/store/container/metadata.go (extension io.cri-containerd.container.metadata).
    """
    try:
        document: Any = json.loads(cri_metadata)
        context = document["Metadata"]["Config"]["linux"]["security_context"]
        return PodIdentity(
            group_fixed="run_as_group" in context,
            groups_fixed=context.get("supplemental_groups_policy", 0) == _STRICT,
        )
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return PodIdentity()
