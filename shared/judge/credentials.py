"""What each restored thread may do against what the live spec lets the container's own process become."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from shared.criu.dump import Dump
from shared.errors import Refused
from shared.judge.capabilities import capability_refusals
from shared.judge.confinement import confinement_refusals
from shared.judge.identity import identity_refusals
from shared.judge.limits import limit_refusals
from shared.judge.pod_identity import PodIdentity
from shared.spec import RuntimeSpec


def credential_refusals(dump: Dump, dumped: RuntimeSpec, live: RuntimeSpec, identity: PodIdentity) -> Iterator[Refused]:
    """Every thread of the dump against the live spec; each refusal names the process."""
    return itertools.chain(
        capability_refusals(dump, live),
        identity_refusals(dump, dumped, live, identity),
        confinement_refusals(dump, live),
        limit_refusals(dump, live),
    )
