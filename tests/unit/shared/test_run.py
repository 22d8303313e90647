"""Child processes that cannot even start."""

from __future__ import annotations

from pathlib import Path

import pytest

from shared.errors import CommandFailed
from shared.run import run


@pytest.mark.parametrize(("content", "status"), [(None, 127), (b"\x7fELFnot", 126)])
def test_program_that_does_not_start_is_an_error_of_ours(tmp_path: Path, content: bytes | None, status: int) -> None:
    program = tmp_path / "program"
    if content is not None:
        program.write_bytes(content)
        program.chmod(0o755)
    with pytest.raises(CommandFailed) as failed:
        run([program], timeout_s=10)
    assert failed.value.status == status
