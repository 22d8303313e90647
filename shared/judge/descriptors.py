"""descriptors.json: what the first three descriptors of the container's processes were.

runc and crun write it beside CRIU's images and read it back: a pipe or terminal named there is given to CRIU by
``--inherit-fd`` in place of the dump's (runc libcontainer/criu_linux.go Restore; crun src/libcrun/criu.c). Anything
else of the file is ignored, so three names are all that is written again.
"""

from __future__ import annotations

import json
import re
from typing import Final

from shared.criu.images import ImageDirectory
from shared.errors import CheckpointInvalid
from shared.json_object import JsonObject, parse_json
from shared.judge.writing import ImageFile

NAME: Final = "descriptors.json"
_BYTES_MAX: Final = 1 << 20
_TARGET: Final = re.compile(
    r"(pipe|socket):\[[0-9]{1,20}\]|/dev/(null|pts/[0-9]{1,10}|pts/ptmx|console|tty)|/[^\x00]{0,4095}"
)


def descriptors_file(images: ImageDirectory) -> ImageFile:
    """Raises CheckpointInvalid("DescriptorsInvalid")."""
    path = images.path(NAME)
    document = parse_json(images.files.read(path, _BYTES_MAX), path)
    names = JsonObject({"descriptors": document}, path).texts("descriptors")[:3]
    if len(names) < 3:
        raise CheckpointInvalid("DescriptorsInvalid", f"{path} does not list stdin, stdout and stderr")
    for name in names:
        if name and not _TARGET.fullmatch(name):
            raise CheckpointInvalid("DescriptorsInvalid", f"{path} names {name[:80]!r}, which no descriptor is")
    return ImageFile(NAME, (json.dumps(names, separators=(",", ":")).encode(),))
