"""BPF maps, which are not restored: CRIU would make them with its own rights, and few containers have any.

Source: criu/bpfmap.c.
"""

from __future__ import annotations

from typing import Final

from shared.judge.rules import Fields, Rule, default

NOT_RESTORED: Final = "BPF maps are not restored"
_MAP: Final = default(NOT_RESTORED)


def _never(*names: str) -> dict[str, Rule]:
    return dict.fromkeys(names, _MAP)


FIELDS: Final[Fields] = {
    "BpfmapFileEntry": _never(
        "id", "flags", "pos", "fown", "map_type", "key_size", "value_size", "map_id", "max_entries", "map_flags",
        "memlock", "frozen", "map_name", "ifindex", "mnt_id", "map_extra",
    ),
    "BpfmapDataEntry": _never("map_id", "keys_bytes", "values_bytes", "count"),
}  # fmt: skip
