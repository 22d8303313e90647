"""``make hostile``: every attack, by the checks alone and through the real path; the last line has the figures."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import tests.hostile.attacks  # noqa: F401  registers them
from tests.hostile.attack import ATTACKS, TWINS
from tests.hostile.battle import fight
from tests.hostile.in_process import live_of, outcome
from tests.hostile.nodes import nodes
from tests.hostile.real_node import by_image


def main() -> int:
    files = [attack for attack in ATTACKS if attack.route == "archive"]
    with tempfile.TemporaryDirectory(prefix="hostile-") as name, nodes(Path(name)) as found:
        print(
            f"{len(by_image(ATTACKS))} attacks by image on containerd 1.7, {len(files)} on archives, {len(TWINS)} twins"
        )
        report = fight(found.node_17, found.victims, by_image(ATTACKS), TWINS)
        archive = found.victims["ordinary"].archive
        live = live_of(archive, user=False)
        for attack in files:
            report.attacks += 1
            with tempfile.TemporaryDirectory(dir=name) as folder:
                said = outcome(attack, archive, live, Path(folder))
            if said.reason != attack.reason:
                report.accepted.append(f"{attack.name}: {said.reason or 'accepted'}, not {attack.reason}")
    for what in (*report.accepted, *report.effects, *report.twins_refused):
        print(what)
    print(f"{report.seconds:.1f} s, {report.slowest:.2f} s at most; {report.memory_bytes >> 20} MiB at most")
    print(report.line())
    return 1 if report.accepted or report.effects or report.twins_refused else 0


if __name__ == "__main__":
    sys.exit(main())
