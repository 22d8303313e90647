from __future__ import annotations

from pathlib import Path

import pytest

from nri_plugin.restore.cgroups import cgroup2_options

ROOT = "28 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw,discard"


@pytest.mark.parametrize(
    ("lines", "options"),
    [
        ([ROOT], ""),
        ([ROOT, "30 28 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw"], ""),
        (
            [ROOT, "30 28 0:26 / /sys/fs/cgroup rw shared:4 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot"],
            "nsdelegate,memory_recursiveprot",
        ),
        ([ROOT, "30 28 0:26 / /sys/fs/cgroup rw - cgroup cgroup rw,pids"], ""),
    ],
)
def test_options_are_the_nodes_own(lines: list[str], options: str, tmp_path: Path) -> None:
    mountinfo = tmp_path / "mountinfo"
    mountinfo.write_text("".join(f"{line}\n" for line in lines))
    assert cgroup2_options(mountinfo) == options
