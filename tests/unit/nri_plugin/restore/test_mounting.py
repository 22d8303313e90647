"""What the node itself has mounted."""

from __future__ import annotations

from pathlib import Path

import pytest

from nri_plugin.restore.mounting import cgroup2_options

ROOT = "22 1 252:1 / / rw,relatime shared:1 - ext4 /dev/vda1 rw,discard\n"


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (
            "30 25 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot\n",
            "nsdelegate,memory_recursiveprot",
        ),
        ("30 25 0:26 / /sys/fs/cgroup ro,nosuid shared:9 master:1 - cgroup2 none ro\n", ""),
        ("30 25 0:26 / /sys/fs/cgroup ro,nosuid - cgroup cgroup rw,memory\n", ""),
        ("", ""),
    ],
    ids=["unified", "without options", "version 1", "none"],
)
def test_options_of_the_nodes_cgroup2_mount(tmp_path: Path, line: str, options: str) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text(ROOT + line + ROOT)
    assert cgroup2_options(mountinfo) == options
