"""What each restored thread may do against what the live spec lets the container's own process become."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from shared.compare.capabilities import capability_refusals
from shared.compare.confinement import confinement_refusals
from shared.compare.identity import identity_refusals
from shared.compare.limits import limit_refusals
from shared.compare.pod_identity import PodIdentity
from shared.criu.dump import Dump
from shared.errors import Refused
from shared.spec import RuntimeSpec


def credential_refusals(dump: Dump, dumped: RuntimeSpec, live: RuntimeSpec, identity: PodIdentity) -> Iterator[Refused]:
    """Every thread of the dump against the live spec; each refusal names the process."""
    return itertools.chain(
        capability_refusals(dump, live),
        identity_refusals(dump, dumped, live, identity),
        confinement_refusals(dump, live),
        limit_refusals(dump, live),
    )
