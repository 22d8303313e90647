"""One blob on its way into a registry: sent in one stream, taken up again where it broke off.

The first attempt is one PATCH for the whole blob, which every registry takes (docker push does the same, without a
length as we do for what is compressed on the way). After a failure the rest goes in chunks, each a request of its own
with Content-Range. A registry that forgets an interrupted
upload (distribution 2.x does, once a PATCH broke off inside) gets it anew from the first byte; nothing is hashed twice.
Source: OCI distribution-spec v1.1, "Pushing blobs".
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import suppress
from functools import partial
from typing import Final
from urllib.parse import urlencode

from kubectl_restore.image.measure import Measured, Measurement
from kubectl_restore.image.progress import Progress
from kubectl_restore.image.registry import Answer, Registry, read_answer
from kubectl_restore.image.source import Stream
from kubectl_restore.image.transport import Body
from shared.errors import RestoreError, Unavailable

CHUNK_BYTES: Final = 32 << 20
"""Below the request limits that proxies usually have (nginx deployments for registries, CDNs: 100 MB)."""
PAUSES_S: Final = (0.5, 1.0, 2.0, 4.0)
"""Before each further attempt in which the registry got no more bytes than it ever had."""
_COMMIT_TIMEOUT_S: Final = 600.0
"""A registry may read the whole blob again before it answers the last request."""
_CANCEL_TIMEOUT_S: Final = 5.0
_OCTETS: Final = {"Content-Type": "application/octet-stream"}


class Upload:
    """An upload session; ``send`` may be called once. A context manager: leaving it by an error cancels the upload."""

    def __init__(self, registry: Registry, source: Stream, label: str, progress: Progress, session: str = "") -> None:
        self._registry = registry
        self._source = source
        self._label = label
        self._progress = progress
        self._session = session
        self._sent = 0
        self._sure = True
        self._digest = ""
        self._end = source.size
        """None while a stream has not been read to its end."""
        self._chunk = max(sys.maxsize if source.size is None else source.size, 1)
        self._reading: Iterator[bytes] = iter(())

    def __enter__(self) -> Upload:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self._stop_reading()
        if kind is not None:
            self._cancel()

    def send(self, measurement: Measurement) -> Measured:
        """Uploads and commits; raises Unavailable when it makes no progress any more, RestoreError when refused."""
        if not self._session:
            self._start()  # a registry that is not there at all is said at once
        most, failures = -1, 0
        while True:
            try:
                return self._attempt(measurement)
            except Unavailable as error:
                failures = 0 if self._sent > most else failures + 1
                most = max(most, self._sent)
                if failures >= len(PAUSES_S):
                    raise Unavailable(
                        error.reason,
                        f"the upload to {self._registry.place} does not get on after {failures} tries: {error}",
                    ) from error
                time.sleep(PAUSES_S[failures])
                self._chunk = min(self._chunk, CHUNK_BYTES)
                self._sure = False

    def _attempt(self, measurement: Measurement) -> Measured:
        if not self._sure:
            if self._digest and self._registry.has(self._digest):
                self._session = ""  # the last request had arrived, only its answer was lost
                return measurement.result()
            self._find_position()
        if not self._session:
            self._start()
        while self._end is None or self._sent < self._end:
            self._patch(measurement)
        measured = measurement.result()
        self._digest = measured.digest
        self._commit(measured.digest)
        return measured

    def _start(self) -> None:
        url = self._registry.url("blobs/uploads/")
        answer = self._registry.request("POST", url, headers={"Content-Length": "0"}, expect=(202,))
        self._follow(url, answer)
        self._sent = 0

    def _patch(self, measurement: Measurement) -> None:
        start = self._sent
        if self._end is None and self._chunk < sys.maxsize:
            content = b"".join(self._pieces(measurement, start, self._chunk))  # a chunk's length goes before it
            if not content:
                return
            body: Body = content
            size: int | None = len(content)
        else:
            size = None if self._end is None else min(self._end - start, self._chunk)
            body = partial(self._pieces, measurement, start, size)
        headers = dict(_OCTETS)
        if size is not None:
            headers["Content-Length"] = str(size)
            if (start, size) != (0, self._source.size):
                headers["Content-Range"] = f"{start}-{start + size - 1}"
        response = self._registry.open("PATCH", self._session, headers=headers, body=body)
        answer = read_answer(response, self._registry.transport)
        if answer.status in (202, 204):
            self._follow(self._session, answer)
            end = (self._end or 0) if size is None else start + size
            self._sent = 1 if end == 1 else _received(answer, otherwise=end)
            if self._sent <= start < end:
                raise Unavailable(
                    "RegistryInterrupted", f"{self._registry.place} took bytes and says it has {self._sent} of them"
                )
        elif answer.status == 411 and size is None:
            raise Unavailable("RegistryInterrupted", f"{self._registry.place} wants to know a request's length first")
        elif answer.status == 413 and self._chunk > CHUNK_BYTES:
            raise Unavailable("RegistryTooLarge", f"{self._registry.place} refuses requests above {self._chunk} bytes")
        elif answer.status in (404, 416) and (start or self._chunk <= CHUNK_BYTES):
            self._cancel()
            raise Unavailable("RegistryInterrupted", f"{self._registry.place} lost the upload")
        else:
            raise self._registry.refusal(answer)

    def _pieces(self, measurement: Measurement, start: int, size: int | None) -> Iterator[bytes]:
        """What goes into one request; all that is left when ``size`` is None."""
        pieces = measurement.tee(self._to_the_end(start), start)
        limited = pieces if size is None else _first(size, pieces)
        return self._progress.track(self._label, self._source.size, limited, start)

    def _to_the_end(self, start: int) -> Iterator[bytes]:
        self._stop_reading()
        self._reading, position = self._source.pieces(start), start
        for piece in self._reading:
            position += len(piece)
            yield piece
        self._end = position

    def _stop_reading(self) -> None:
        """Ends what a request that broke off was reading.

        Left to the garbage collector, a source that compresses waited for its threads wherever that happened to run,
        also inside the start of another thread, which none of them could end before (threading.py, CPython 3.11).
        """
        if isinstance(self._reading, Generator):
            self._reading.close()

    def _commit(self, digest: str) -> None:
        url = self._session + ("&" if "?" in self._session else "?") + urlencode({"digest": digest})
        response = self._registry.open("PUT", url, headers={"Content-Length": "0"}, read_timeout_s=_COMMIT_TIMEOUT_S)
        answer = read_answer(response, self._registry.transport)
        if answer.status != 201:
            raise self._registry.refusal(answer)
        self._session = ""

    def _find_position(self) -> None:
        """Asks how much has arrived; an upload that the registry does not know any more starts anew."""
        if self._session:
            answer = read_answer(self._registry.open("GET", self._session), self._registry.transport)
            if answer.status >= 500 or answer.status == 429:
                raise self._registry.refusal(answer)
            if answer.status in (200, 202, 204):
                self._follow(self._session, answer)
                self._sent = _received(answer, otherwise=0)
            else:
                self._cancel()
        self._sure = True

    def _cancel(self) -> None:
        session, self._session, self._sent = self._session, "", 0
        if session:
            with suppress(RestoreError):  # whatever brought us here is what to report; registries purge old uploads
                self._registry.request("DELETE", session, expect=(202, 204), read_timeout_s=_CANCEL_TIMEOUT_S)

    def _follow(self, url: str, answer: Answer) -> None:
        if location := answer.headers.get("Location"):
            self._session = self._registry.absolute(url, location)
        elif not self._session:
            raise RestoreError("RegistryRefused", f"{self._registry.place} started an upload without a Location")


def _received(answer: Answer, *, otherwise: int) -> int:
    """Bytes the registry has, from ``Range: 0-LAST``; ``0-0`` stands for none as well as for one."""
    found = re.fullmatch(r"(?:bytes=)?0-(\d+)", answer.headers.get("Range", ""))
    if not found:
        return otherwise
    last = int(found[1])
    return last + 1 if last else 0


def _first(size: int, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        yield piece[:size]
        size -= len(piece)
        if size <= 0:
            return
