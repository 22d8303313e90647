"""Our messages must work with whichever protobuf runtime pip gives the user, not only the one we develop with."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
ROUND_TRIP = """
import google.protobuf
from nri_plugin.containerd import containerd_pb2, cri_pb2
from nri_plugin.nri import nri_pb2
from nri_plugin.ttrpc import ttrpc_pb2
from shared.criu import criu_pb2
container = nri_pb2.Container(id="c", annotations={"a": "b"}, mounts=[nri_pb2.Mount(destination="/d", options=["ro"])])
again = nri_pb2.Container.FromString(container.SerializeToString())
assert again.annotations["a"] == "b" and again.mounts[0].options == ["ro"], again
assert cri_pb2.PullImageRequest(image=cri_pb2.ImageSpec(image="x")).SerializeToString() == b"\\n\\x03\\n\\x01x"
assert criu_pb2.InventoryEntry.FromString(b"\\x58\\x02\\x08\\x02").network_lock_method == 2
print(google.protobuf.__version__)
"""


@pytest.mark.parametrize("wanted", ["==5.26.*", "==6.*", "==7.*"])
def test_messages_round_trip_on_protobuf(wanted: str, tmp_path: Path) -> None:
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    subprocess.run([*install, "--target", str(tmp_path), f"protobuf{wanted}"], check=True, timeout=180)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-c", ROUND_TRIP], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().startswith(wanted.removeprefix("==").removesuffix("*"))
