"""Which files some process of the dump has, by a descriptor or on their way to one.

CRIU opens what a descriptor of a living task or a packet to an open socket refers to; the entry of any other file only
changes what CRIU believes about these (criu/files.c, criu/sk-unix.c).
"""

from __future__ import annotations

from shared.criu.dump import Dump


def reachable(dump: Dump) -> frozenset[tuple[str, int]]:
    """Kinds and ids of files; a packet names its files by their ids alone (find_file_desc_raw)."""
    found = {(each.kind, each.file) for each in dump.descriptors}
    if not dump.packets:
        return frozenset(found)
    kinds: dict[int, set[str]] = {}
    for file in dump.files:
        kinds.setdefault(file.id, set()).add(file.kind)
    sent: dict[tuple[str, int], set[tuple[str, int]]] = {}
    for packet in dump.packets:
        files = sent.setdefault(("unixsk", packet.receiver), set())
        files.update((kind, number) for rights in packet.rights for number in rights for kind in kinds.get(number, ()))
    left = [receiver for receiver in sent if receiver in found]
    while left:
        new = sent.pop(left.pop(), set()) - found
        found |= new
        left += [file for file in new if file in sent]
    return frozenset(found)
