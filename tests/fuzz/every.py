"""Every target, by name."""

from __future__ import annotations

from typing import Final

from tests.fuzz import archives, checkpoint, messages, programs
from tests.fuzz.target import Target

EVERY: Final[dict[str, Target]] = {
    target.name: target for module in (archives, checkpoint, messages, programs) for target in module.TARGETS
}
