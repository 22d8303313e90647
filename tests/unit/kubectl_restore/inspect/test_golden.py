"""What people and scripts get, letter by letter. A missing file of tests/data/inspect is written: look, then commit."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from kubectl_restore.inspect.document import as_json, document_of
from kubectl_restore.inspect.facts import KIND
from kubectl_restore.inspect.gather import gather
from kubectl_restore.inspect.tree import tree_of
from kubectl_restore.printing import print_tree
from shared.archive import open_checkpoint
from tests.support.checkpoints import containerd
from tests.support.inspected import rich_dump
from tests.unit.kubectl_restore.inspect.conftest import Gather
from tests.unit.shared.conftest import SAMPLES

GOLDEN = Path(__file__).resolve().parents[3] / "data" / "inspect"


def compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if not path.exists():
        path.write_text(text)
        pytest.fail(f"wrote {path}; look at it and commit it")
    assert text == path.read_text()


def tree_text(found: object) -> str:
    out = io.StringIO()
    print_tree(tree_of(found), out)  # type: ignore[arg-type]
    return out.getvalue()


@pytest.mark.parametrize("name", ["counter-containerd21", "counter-kubelet136"])
def test_real_checkpoint(name: str) -> None:
    if not SAMPLES.is_dir():
        pytest.skip("the real checkpoints lie beside the checkout, in ../shared/data, and are not there")
    with open_checkpoint(SAMPLES / f"{name}.tar") as files:
        found = gather(files, f"{name}.tar")
    compare(f"{name}.txt", tree_text(found))
    compare(f"{name}.json", as_json(document_of(found, KIND)) + "\n")


def test_something_of_everything(inspected: Gather) -> None:
    dump = rich_dump()
    # What zlib makes of the same bytes has another length with every version of it.
    dump.raw["tmpfs-dev-65.tar.gz.img"] = bytes(200)
    found = inspected(containerd(dump) | {"rootfs-diff.tar": bytes(4096)})
    compare("everything.txt", tree_text(found))
    compare("everything.json", as_json(document_of(found, KIND)) + "\n")
