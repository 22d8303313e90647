from __future__ import annotations

from pathlib import Path

import pytest

from nri_plugin.restore.kernel import check_kernel

REQUIRED = "Error (criu/cr-check.c:211): prctl: PR_SET_MM is not supported"
TUN = "Error (criu/tun.c:85): tun: Unable to create tun: No such file or directory"


@pytest.mark.parametrize(
    ("script", "passed", "lacks", "errors"),
    [
        ("echo Looks good.", True, (), ()),
        (f"echo '{TUN}' >&2; exit 1", False, (), (TUN,)),
        (f"echo '{REQUIRED}' >&2; echo 'Warn  (criu/x.c:1): y' >&2; exit 1", False, (REQUIRED,), (REQUIRED,)),
        (f"echo '{REQUIRED}' >&2", True, (), (REQUIRED,)),
    ],
)
def test_what_criu_calls_required(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    script: str,
    passed: bool,
    lacks: tuple[str, ...],
    errors: tuple[str, ...],
) -> None:
    program = tmp_path / "criu"
    program.write_text(f'#!/bin/sh\n[ "$1" = check ] || exit 9\n{script}\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    found = check_kernel()
    assert (found.passed, found.lacks, found.errors) == (passed, lacks, errors)
