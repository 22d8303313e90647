"""``make fuzz MINUTES=10``: all targets share the time; prints what each did, and exits 1 when one found something.

Corpora grow in build/fuzz/<target>/corpus from run to run; what breaks a contract is build/fuzz/<target>/found-….
"""

from __future__ import annotations

import argparse
import hashlib
import re
import sys
from pathlib import Path
from typing import Final

from shared.run import run
from tests.fuzz.every import EVERY
from tests.fuzz.target import Target

BUILD: Final = Path(__file__).parents[2] / "build" / "fuzz"
LENGTH_BYTES_MAX: Final = 64 << 10
_EXECUTED: Final = re.compile(r"stat::number_of_executed_units:\s+(\d+)")
_PEAK: Final = re.compile(r"stat::peak_rss_mb:\s+(\d+)")
_WHY: Final = re.compile(
    r"^(?:\w[\w.]*(?:Error|Exception|RanAway|Invalid|Refused)\b.*|==\d+== ?ERROR: .*)$", re.MULTILINE
)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--target", action="append", choices=sorted(EVERY), help="only this one; may be repeated")
    options = parser.parse_args()
    targets = [EVERY[name] for name in options.target or EVERY]
    seconds = max(2, round(options.minutes * 60 / len(targets)))
    executed = found = 0
    for target in targets:
        count, peak, finding = fuzz(target, seconds)
        executed += count
        found += bool(finding)
        print(f"{target.name}: {count} inputs, {peak} MiB at most{f'; {finding}' if finding else ''}", flush=True)
    print(f"targets={len(targets)} executed={executed} findings={found}")
    return 1 if found else 0


def fuzz(target: Target, seconds: int) -> tuple[int, int, str]:
    """How many inputs were tried, peak MiB, and what was found: empty for nothing."""
    folder = BUILD / target.name
    corpus = folder / "corpus"
    corpus.mkdir(parents=True, exist_ok=True)
    for seed in target.seeds():
        (corpus / hashlib.sha256(seed).hexdigest()[:16]).write_bytes(seed)
    argv = [
        sys.executable,
        "-m",
        "tests.fuzz.one",
        target.name,
        f"-max_total_time={seconds}",
        f"-max_len={LENGTH_BYTES_MAX}",
        "-timeout=20",
        "-rss_limit_mb=1024",
        "-print_final_stats=1",
        f"-artifact_prefix={folder}/found-",
        str(corpus),
    ]
    done = run(argv, timeout_s=seconds * 3 + 120, check=False)
    said = done.stdout + done.stderr
    (folder / "log").write_text(said)
    count, peak = (int(match[1]) if (match := each.search(said)) else 0 for each in (_EXECUTED, _PEAK))
    if not done.returncode:
        return count, peak, ""
    why = _WHY.findall(said)
    return count, peak, f"{why[0][:200] if why else f'exit status {done.returncode}'} (see {folder}/log)"


if __name__ == "__main__":
    sys.exit(main())
