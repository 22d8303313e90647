"""``make hostile``: mutations of checkpoints by the thousand, then every attack that somebody thought of.

The last lines have the figures: fields of CRIU's format and how many were changed, mutations and what came of them,
those that were restored among canaries, and the attacks. The exit status is 1 unless all of it is as it must be.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import tests.hostile.attacks  # noqa: F401  registers them
from tests.hostile.attack import ATTACKS, TWINS, to_be_refused, to_be_restored
from tests.hostile.battle import Report, fight
from tests.hostile.by_command import build_all
from tests.hostile.generator.edits import from_json
from tests.hostile.generator.generated import FIELDS, Generated, differs_from_disk
from tests.hostile.generator.outcome import Verdict
from tests.hostile.nodes import Nodes, nodes
from tests.hostile.real_node import by_archive, by_image
from tests.hostile.rewriting import twins_of
from tests.hostile.victims import archives_of


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.hostile", description=__doc__.split("\n\n")[0])
    parser.add_argument("--generate", type=int, default=200_000, metavar="N", help="mutations; 0 is none (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="what they follow from (%(default)s)")
    parser.add_argument("--seconds", type=float, default=900.0, help="no more mutations after so long (%(default)s)")
    parser.add_argument("--restore", type=int, default=40, metavar="N", help="of them on a real node (%(default)s)")
    parser.add_argument("--sample", action="append", default=[], help="mutate this checkpoint alone; repeatable")
    parser.add_argument("--try", dest="edits", metavar="EDITS", help="one mutation, as printed with a harmful one")
    parser.add_argument("--generated-only", action="store_true", help="without the attacks that somebody thought of")
    return parser.parse_args()


def main() -> int:
    arguments = parse()
    with tempfile.TemporaryDirectory(prefix="hostile-") as name, nodes(Path(name)) as found:
        if arguments.edits:
            (sample,) = arguments.sample
            came = Generated.of(found, [sample]).attempt(sample, from_json(arguments.edits))
            print(came.verdict.name.lower(), came.why, *came.changed, sep="\n")
            return int(came.verdict is Verdict.HARMFUL)
        lines, harmless = generated(found, arguments, Path(name)) if arguments.generate else ([], True)
        report = None if arguments.generated_only else attacks(found, Path(name))
    for line in lines:
        print(line)
    if report is None:
        return int(not harmless)
    print(report.line())
    return int(not harmless or bool(report.accepted or report.effects or report.twins_refused))


def generated(found: Nodes, arguments: argparse.Namespace, folder: Path) -> tuple[list[str], bool]:
    """The last lines about the mutations, and whether none of them does harm."""
    ground = Generated.of(found, arguments.sample)
    campaign = ground.campaign(arguments.seed)
    singles = sum(len(each.singles) for each in campaign.mutations)
    print(f"{arguments.generate} mutations of {', '.join(ground.samples)}; {singles} change one thing", flush=True)
    figures = campaign.run(arguments.generate, seconds=arguments.seconds)
    otherwise = differs_from_disk(campaign, folder)
    for line in (*figures.details(), *(f"otherwise on disk: {each}" for each in otherwise)):
        print(line)
    lines = figures.lines(FIELDS)
    harmless = not figures.harmful and not otherwise
    if arguments.restore:
        print(f"{arguments.restore} of {len(figures.accepted)} that nothing refused are restored", flush=True)
        restored = ground.restore(figures.accepted, arguments.restore, arguments.seed)
        for what in (*restored.why_failed, *restored.honest_refused, *restored.effects):
            print(what)
        lines.append(restored.line())
        harmless = harmless and not restored.effects and not restored.honest_refused
    return lines, harmless


def attacks(found: Nodes, folder: Path) -> Report:
    """Every attack, by the checks alone and through the real path."""
    archives = archives_of(found.victims)
    to_refuse, harmless = by_image(to_be_refused(ATTACKS)), by_image(to_be_restored(ATTACKS))
    twins = [*by_image(TWINS), *harmless, *twins_of(ATTACKS, archives)]
    print(f"{len(to_refuse)} attacks by image on containerd 1.7, {len(twins)} twins", flush=True)
    report = fight(found.node_17, found.victims, to_refuse, twins)
    files, benign = by_archive(ATTACKS), by_archive(TWINS)
    print(f"{len(files)} attacks by archive on kubectl restore build, {len(benign)} twins", flush=True)
    report.add(build_all(files, benign, archives, folder / "build"))
    print(f"{len(harmless)} of the twins are attacks that CRIU gets nothing of")
    unheard = [each.name for each in twins if each.unheard]
    print(f"{len(unheard)} of the twins carry what an attacker would write, to no effect: {'; '.join(unheard)}")
    for what in (*report.accepted, *report.effects, *report.twins_refused):
        print(what)
    print(f"{report.seconds:.1f} s, {report.slowest:.2f} s at most; {report.memory_bytes >> 20} MiB at most")
    return report


if __name__ == "__main__":
    sys.exit(main())
