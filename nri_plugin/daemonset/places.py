"""Where the program is: at the same path in the image and, once it is installed, on the node."""

from __future__ import annotations

from pathlib import Path
from typing import Final

PLACE: Final = Path("/opt/nri-restore")
CURRENT: Final = PLACE / "current"
"""A link to the tree in use, ``<version>-<digest>`` beside it; replaced in one step, so that what the runtime's
configuration and plans of restored containers name stays."""
FILES: Final = Path("/etc/nri-restore")
"""In the container: what is to be in the same folder of the node."""
TMPFILES: Final = Path("/etc/tmpfiles.d/nri-restore.conf")
"""On the node, from the file of that name in the tree: systemd drops old logs of failed restores by it."""
