"""What can go wrong between bytes and calls."""

from __future__ import annotations

from shared.errors import RestoreError


class ProtocolError(RestoreError):
    """The peer sent, or the caller asked for, what mux or ttrpc do not allow; the connection is of no more use."""

    def __init__(self, sentence: str) -> None:
        super().__init__("NriProtocol", sentence)


class MessageTooLarge(RestoreError):
    """A message to send is over the limit of MAX_MESSAGE_BYTES; nothing was sent, the connection is sound."""

    def __init__(self, size_bytes: int, limit_bytes: int) -> None:
        super().__init__("NriMessageTooLarge", f"message of {size_bytes} bytes is over ttrpc's limit of {limit_bytes}")
        self.size_bytes = size_bytes
