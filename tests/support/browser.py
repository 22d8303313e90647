"""A headless Chromium, driven through its DevTools protocol over two pipes.

``with Browser(profile) as browser: page = browser.open(path, width=360)``; then ``page.value("document.title")``.
Protocol: https://chromedevtools.github.io/devtools-protocol (JSON messages that end with a zero byte).
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from collections import deque
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

TIMEOUT_S = 60.0


class Browser:
    def __init__(self, profile: Path) -> None:
        program = shutil.which("chromium")
        assert program, "there is no chromium; tools/setup-system installs it"
        self._program = program
        self._profile = profile
        self._answers: dict[int, dict[str, Any]] = {}
        self._events: deque[dict[str, Any]] = deque()
        self._unread = b""
        self._next = 0

    def __enter__(self) -> Self:
        to_browser, self._in = os.pipe()
        self._out, from_browser = os.pipe()
        words = [
            self._program,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            f"--user-data-dir={self._profile}",
            "--remote-debugging-pipe",
            "about:blank",
        ]

        def connect() -> None:
            """Chromium reads commands from descriptor 3 and writes answers to 4."""
            high = [fcntl.fcntl(each, fcntl.F_DUPFD, 20) for each in (to_browser, from_browser)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            words,
            pass_fds=(3, 4),
            preexec_fn=connect,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        os.close(self._in)
        os.close(self._out)
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, 9)
            self._process.wait()

    def open(self, path: Path, *, width: int, height: int = 900, dark: bool = False) -> Page:
        """The page when it has loaded, at that many CSS pixels."""
        target = self.call("Target.createTarget", {"url": "about:blank"})["targetId"]
        session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Network", "Log"):
            page.call(f"{domain}.enable")
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        page.call("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", {"features": [scheme]})
        page.call("Page.navigate", {"url": path.as_uri()})
        page.wait_for("Page.loadEventFired")
        return page

    def call(self, method: str, params: dict[str, Any] | None = None, session: str | None = None) -> dict[str, Any]:
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": params or {}}
        if session:
            message["sessionId"] = session
        os.write(self._in, json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + TIMEOUT_S
        while self._next not in self._answers:
            self._read(deadline)
        answer = self._answers.pop(self._next)
        assert "error" not in answer, answer
        result: dict[str, Any] = answer["result"]
        return result

    def next_event(self, deadline: float) -> dict[str, Any]:
        while not self._events:
            self._read(deadline)
        return self._events.popleft()

    def _read(self, deadline: float) -> None:
        ready, _, _ = select.select([self._out], [], [], max(0, deadline - time.monotonic()))
        assert ready, "the browser does not answer"
        piece = os.read(self._out, 1 << 20)
        assert piece, "the browser ended"
        *whole, self._unread = (self._unread + piece).split(b"\0")
        for text in whole:
            message = json.loads(text)
            if "id" in message:
                self._answers[message["id"]] = message
            else:
                self._events.append(message)


@dataclass
class Page:
    browser: Browser
    session: str
    requests: list[str] = field(default_factory=list)
    """Addresses of everything asked for so far."""
    complaints: list[str] = field(default_factory=list)
    """What the browser wrote into its log, such as a refusal by the page's policy."""

    def call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        return self.browser.call(method, params, self.session)

    def wait_for(self, name: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            event = self.browser.next_event(deadline)
            if event.get("sessionId") != self.session:
                continue
            if event["method"] == "Network.requestWillBeSent":
                self.requests.append(event["params"]["request"]["url"])
            elif event["method"] == "Log.entryAdded":
                self.complaints.append(event["params"]["entry"]["text"])
            elif event["method"] == name:
                return

    def value(self, expression: str) -> Any:
        """What the expression gives, as JSON; the page's own policy does not bind it."""
        answer = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True})
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")
