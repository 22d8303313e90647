"""Compiles every .proto file of the project: NAME.proto -> NAME_pb2.py (runtime) and NAME_pb2.pyi (types).

``python tools/protos.py`` rewrites them; ``--check`` exits 1 when a compiled file is not what its source gives.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

from google.protobuf import descriptor_pb2
from grpc_tools import protoc

ROOT = Path(__file__).resolve().parent.parent
TREES = ("shared", "nri_plugin", "kubectl_restore", "tests")


def compile_proto(source: Path) -> dict[Path, str]:
    with tempfile.TemporaryDirectory() as out:
        status = protoc.main(
            ["protoc", f"-I{source.parent}", f"--pyi_out={out}", f"--descriptor_set_out={out}/set", str(source)]
        )
        if status:
            raise SystemExit(f"{source.relative_to(ROOT)}: protoc failed")
        # protoc writes `_Mapping` without parameters (protobuf 7.35), which mypy --strict refuses.
        types = '# mypy: disable-error-code="type-arg"\n' + (Path(out) / f"{source.stem}_pb2.pyi").read_text()
        files = descriptor_pb2.FileDescriptorSet.FromString((Path(out) / "set").read_bytes()).file
    (file,) = files
    python = (
        f"# Compiled from {source.name} by tools/protos.py; edit that file, then run `make protos`.\n"
        "from shared.protobuf import define\n\n"
        f"define(globals(), {file.SerializeToString(deterministic=True)!r})\n"
    )
    return {
        source.with_name(f"{source.stem}_pb2.py"): python,
        source.with_name(f"{source.stem}_pb2.pyi"): types,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="change nothing; exit 1 when a file is out of date")
    check = parser.parse_args().check
    stale = []
    for source in sorted(path for tree in TREES for path in (ROOT / tree).rglob("*.proto")):
        for target, content in compile_proto(source).items():
            if target.exists() and target.read_text() == content:
                continue
            stale.append(str(target.relative_to(ROOT)))
            if not check:
                target.write_text(content)
    if check and stale:
        sys.exit("out of date, run `make protos`: " + ", ".join(stale))


if __name__ == "__main__":
    main()
