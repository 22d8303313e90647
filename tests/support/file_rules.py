"""The rules of open files alone, where those of sockets, tasks and mounts do not matter."""

from __future__ import annotations

from typing import Final

from shared.criu import criu_pb2
from shared.judge.files import FIELDS
from shared.judge.rules import Rules, free

RULES: Final = Rules(
    {
        **{
            name: {field.name: free("elsewhere") for field in message.fields}
            for name, message in criu_pb2.DESCRIPTOR.message_types_by_name.items()
        },
        **FIELDS,
    }
)
