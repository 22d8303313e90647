"""``python -m tests.fuzz.one TARGET [libFuzzer options] [CORPUS…]``: fuzzes one target, guided by coverage."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["shared", "nri_plugin", "kubectl_restore"], enable_loader_override=False):
    from tests.fuzz.every import EVERY


def main() -> None:
    target = EVERY[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.hold)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
