"""``make hostile``: every attack, by the checks alone and through the real path; the last line has the figures."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import tests.hostile.attacks  # noqa: F401  registers them
from tests.hostile.attack import ATTACKS, TWINS, to_be_refused, to_be_restored
from tests.hostile.battle import fight
from tests.hostile.by_command import build_all
from tests.hostile.nodes import nodes
from tests.hostile.real_node import by_archive, by_image
from tests.hostile.rewriting import twins_of
from tests.hostile.victims import archives_of


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="hostile-") as name, nodes(Path(name)) as found:
        archives = archives_of(found.victims)
        attacks, harmless = by_image(to_be_refused(ATTACKS)), by_image(to_be_restored(ATTACKS))
        twins = [*by_image(TWINS), *harmless, *twins_of(ATTACKS, archives)]
        print(f"{len(attacks)} attacks by image on containerd 1.7, {len(twins)} twins")
        report = fight(found.node_17, found.victims, attacks, twins)
        files, benign = by_archive(ATTACKS), by_archive(TWINS)
        print(f"{len(files)} attacks by archive on kubectl restore build, {len(benign)} twins", flush=True)
        report.add(build_all(files, benign, archives, Path(name, "build")))
    print(f"{len(harmless)} of the twins are attacks that CRIU gets nothing of")
    unheard = [each.name for each in twins if each.unheard]
    print(f"{len(unheard)} of the twins carry what an attacker would write, to no effect: {'; '.join(unheard)}")
    for what in (*report.accepted, *report.effects, *report.twins_refused):
        print(what)
    print(f"{report.seconds:.1f} s, {report.slowest:.2f} s at most; {report.memory_bytes >> 20} MiB at most")
    print(report.line())
    return 1 if report.accepted or report.effects or report.twins_refused else 0


if __name__ == "__main__":
    sys.exit(main())
