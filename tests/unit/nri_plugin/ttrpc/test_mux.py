from __future__ import annotations

import itertools
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nri_plugin.ttrpc.errors import ProtocolError
from nri_plugin.ttrpc.mux import MAX_FRAME_BYTES, PLUGIN_SERVICE, RUNTIME_SERVICE, Demultiplexer, frames


def streams(pieces: list[tuple[int, bytes]]) -> dict[int, bytes]:
    joined: dict[int, bytes] = {}
    for connection, piece in pieces:
        joined[connection] = joined.get(connection, b"") + piece
    return joined


def test_each_chunk_becomes_a_frame_of_its_own() -> None:
    assert frames(PLUGIN_SERVICE, [b"header", b"payload!"]) == (
        b"\x00\x00\x00\x01\x00\x00\x00\x06header\x00\x00\x00\x01\x00\x00\x00\x08payload!"
    )


def test_no_chunks_are_no_bytes() -> None:
    assert frames(PLUGIN_SERVICE, []) == b""


def test_frames_of_both_connections_keep_their_order() -> None:
    data = frames(1, [b"a"]) + frames(2, [b"b"]) + frames(1, [b"c"])
    assert Demultiplexer().feed(data) == [(1, b"a"), (2, b"b"), (1, b"c")]


@pytest.mark.parametrize("unknown", [0, 3, 0xFFFFFFFF])
def test_frames_of_unknown_connections_are_dropped_and_what_follows_is_not(unknown: int) -> None:
    data = frames(unknown, [b"x" * 5000]) + frames(2, [b"kept"])
    assert Demultiplexer().feed(data) == [(2, b"kept")]


def test_an_empty_frame_is_no_piece() -> None:
    assert Demultiplexer().feed(frames(1, [b""]) + frames(1, [b"after"])) == [(1, b"after")]


def test_a_piece_is_given_out_before_its_frame_is_complete() -> None:
    demultiplexer = Demultiplexer()
    assert demultiplexer.feed(struct.pack(">II", 1, 10) + b"abc") == [(1, b"abc")]
    assert demultiplexer.feed(b"defghij") == [(1, b"defghij")]


def test_a_frame_of_an_old_nris_limit_is_taken() -> None:
    assert Demultiplexer().feed(struct.pack(">II", 1, MAX_FRAME_BYTES) + b"x") == [(1, b"x")]


def test_a_frame_over_the_limit_is_a_protocol_error_before_anything_is_stored() -> None:
    with pytest.raises(ProtocolError, match=str(MAX_FRAME_BYTES + 1)):
        Demultiplexer().feed(struct.pack(">II", 1, MAX_FRAME_BYTES + 1))


@given(
    st.lists(st.tuples(st.integers(0, 4), st.binary(max_size=40)), max_size=12),
    st.lists(st.integers(0, 300), max_size=20),
)
def test_any_split_gives_the_same_streams(sent: list[tuple[int, bytes]], cuts: list[int]) -> None:
    data = b"".join(frames(connection, [chunk]) for connection, chunk in sent)
    places = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    demultiplexer = Demultiplexer()
    pieces = [piece for start, end in itertools.pairwise(places) for piece in demultiplexer.feed(data[start:end])]
    expected = streams([(c, chunk) for c, chunk in sent if c in (PLUGIN_SERVICE, RUNTIME_SERVICE) and chunk])
    assert streams(pieces) == expected


@given(st.lists(st.binary(max_size=64), max_size=8))
def test_garbage_gives_pieces_or_a_protocol_error(received: list[bytes]) -> None:
    demultiplexer = Demultiplexer()
    try:
        for data in received:
            demultiplexer.feed(data)
    except ProtocolError:
        pass
