"""Every target, by name."""

from __future__ import annotations

from typing import Final

from tests.fuzz import archives, checkpoint, messages, programs, signatures
from tests.fuzz.target import Target

_MODULES: Final = (archives, checkpoint, messages, programs, signatures)
EVERY: Final[dict[str, Target]] = {target.name: target for module in _MODULES for target in module.TARGETS}
