"""The shell programs as a whole: small, and clean by the checker's rules."""

from __future__ import annotations

import subprocess
from typing import Any

from tests.unit.nri_plugin.runtime.conftest import RUNTIME


def test_shellcheck_finds_nothing() -> None:
    done = subprocess.run(["shellcheck", "-x", *RUNTIME.iterdir()], cwd=RUNTIME.parents[1], capture_output=True)
    assert done.returncode == 0, done.stdout.decode()


def test_restore_runc_is_small() -> None:
    assert len((RUNTIME / "restore-runc").read_text().splitlines()) < 150


def test_every_program_can_be_run_and_what_is_read_cannot() -> None:
    executable = {each.name for each in RUNTIME.iterdir() if each.stat().st_mode & 0o111}
    assert executable == {"confined-criu", "criu-root", "restore-runc", "undo-restore", "unlock-network"}


def test_unlock_network_takes_away_what_criu_leaves_and_nothing_else(wrapper: Any) -> None:
    done = subprocess.run([RUNTIME / "unlock-network"], env=wrapper.environment, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert wrapper.firewall == [
        *("iptables -w 5 -D INPUT -j CRIU",) * 2,
        *("iptables -w 5 -D OUTPUT -j CRIU",) * 2,
        *("iptables -w 5 -F CRIU", "iptables -w 5 -X CRIU"),
        *("ip6tables -w 5 -D INPUT -j CRIU",) * 2,
        *("ip6tables -w 5 -D OUTPUT -j CRIU",) * 2,
        *("ip6tables -w 5 -F CRIU", "ip6tables -w 5 -X CRIU"),
        "nft list tables inet",
        "nft delete table inet CRIU-7",
    ]


def test_unlock_network_of_a_namespace_that_is_gone_touches_no_other(wrapper: Any) -> None:
    done = subprocess.run([RUNTIME / "unlock-network", "/proc/1/ns/gone"], env=wrapper.environment)
    assert done.returncode == 0
    assert wrapper.firewall == []
