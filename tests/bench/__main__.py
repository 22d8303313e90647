"""``make bench``: measures speed and size beside rivals on real nodes.

Writes build/bench/results.json and results.svg and prints a table.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
import traceback
from typing import Final

from tests.bench import (
    build_image,
    create_container,
    daemon_memory,
    native_restore,
    other_packagers,
    other_subcommands,
    preparation,
    report,
    start_container,
    verification,
)
from tests.bench.measurement import Benchmark, Result
from tests.bench.setting import Setting

_MODULES: Final = (
    start_container,
    create_container,
    other_subcommands,
    daemon_memory,
    preparation,
    build_image,
    other_packagers,
    native_restore,
    verification,
)
BENCHMARKS: Final[dict[str, Benchmark]] = {each.name: each for module in _MODULES for each in module.BENCHMARKS}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--only", metavar="NAME", action="append", choices=list(BENCHMARKS), help="may be repeated")
    parser.add_argument("--runs", type=int, metavar="N", help="of each side, instead of each benchmark's own number")
    parser.add_argument("--list", action="store_true", help="say what there is and measure nothing")
    parser.add_argument(
        "--write-docs", action="store_true", help="put the latest results into docs/benchmarks.md and measure nothing"
    )
    arguments = parser.parse_args()
    if arguments.list:
        for benchmark in BENCHMARKS.values():
            print(f"{benchmark.name:<14} {benchmark.about} ({benchmark.runs} runs)")
    elif arguments.write_docs:
        report.write_page()
    else:
        measure(arguments.only, arguments.runs)


def measure(only: list[str] | None, runs: int | None) -> None:
    """Measures, writes and prints; exits with 1 when a benchmark could not be run."""
    results: list[Result] = []
    failed = []
    # Ends as Ctrl-C does: with everything gone.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    with Setting() as setting:
        for name in only or BENCHMARKS:
            benchmark = BENCHMARKS[name]
            began = time.monotonic()
            print(f"{name}: {benchmark.about} …", file=sys.stderr, flush=True)
            try:
                results += benchmark.measure(setting, runs or benchmark.runs)
            except Exception:
                failed.append(name)
                traceback.print_exc()
            print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
    print(report.table(report.keep(results, partial=bool(only) or bool(failed))))
    if failed:
        sys.exit(f"not measured: {', '.join(failed)}")


if __name__ == "__main__":
    main()
