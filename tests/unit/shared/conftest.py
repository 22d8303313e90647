from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from shared.archive import CheckpointFiles, open_checkpoint
from shared.errors import CheckpointInvalid
from tests.support.checkpoints import tar_of

SAMPLES = Path(__file__).resolve().parents[4] / "shared" / "data"
Open = Callable[..., CheckpointFiles]


@pytest.fixture(params=["counter-containerd21.tar", "counter-kubelet136.tar"])
def sample(request: pytest.FixtureRequest) -> Path:
    """A checkpoint that a real containerd made."""
    if not SAMPLES.is_dir():
        pytest.skip("the real checkpoints lie beside the checkout, in ../shared/data, and are not there")
    return SAMPLES / str(request.param)


@pytest.fixture
def open_files(tmp_path: Path) -> Iterator[Open]:
    """Opens files given by name and content as a checkpoint archive; closes it at the end."""
    with ExitStack() as stack:
        count = 0

        def opener(files: Mapping[str, bytes] | bytes) -> CheckpointFiles:
            nonlocal count
            count += 1
            path = tmp_path / f"checkpoint-{count}.tar"
            path.write_bytes(files if isinstance(files, bytes) else tar_of(files))
            return stack.enter_context(open_checkpoint(path))

        yield opener


class Refusal:
    """What a refused call raised; for ``with refused("Reason", "words") as …``."""

    def __init__(self, reason: str, *words: str) -> None:
        self._reason = reason
        self._words = words

    def __enter__(self) -> Refusal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> bool:
        assert error is not None, "nothing was refused"
        if not isinstance(error, CheckpointInvalid):
            return False
        assert error.reason == self._reason, error
        for word in self._words:
            assert word in str(error), error
        assert "\n" not in str(error)
        return True


@pytest.fixture
def refused() -> type[Refusal]:
    return Refusal
