"""restore-runc beside a runtime that only writes down how it was called."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

RUNTIME = Path(__file__).parents[4] / "nri_plugin/runtime"
ID = "c" * 64

# Writes its arguments down, each ended by a NUL and each call by a 0x01; `restore` does what the test wants.
_RUNC = """#!/bin/sh
for word; do printf '%s\\0' "$word"; done >>"$CALLS"
printf '\\001' >>"$CALLS"
for word; do
	if [ "$word" = restore ]; then . "$RESTORE"; fi
	[ "$previous" = --pid-file ] && [ "$restored" ] && printf %s "$restored" >"$word"
	previous=$word
done
exit "${status:-0}"
"""
_FIREWALL = """#!/bin/sh
printf '%s\\n' "${0##*/} $*" >>"$FIREWALL"
case $* in
"list tables inet") echo "table inet CRIU-7"; echo "table inet mine"; exit 0 ;;
*-D*) [ "$(grep -cxF -e "${0##*/} $*" "$FIREWALL")" = 1 ] ;;
esac
"""
_UNSHARE = """#!/bin/sh
while [ "${1#--}" != "$1" ]; do [ "$1" = --propagation ] && shift; shift; done
exec "$@"
"""


@dataclass
class Wrapper:
    """Calls of restore-runc with plans, bundle and configuration of the test's own, without any privilege."""

    folder: Path
    settings: dict[str, str | int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.plans, self.bundle, tools = (self.folder / name for name in ("plans", "bundle", "tools"))
        self.plan = self.plans / ID
        for each in (self.plans, self.bundle / "rootfs", tools):
            each.mkdir(parents=True)
        self.config("container")
        self.behaviour = self.folder / "behaviour"
        self.behaves("restored=1")
        programs = {"runc": _RUNC, "unshare": _UNSHARE, "sleep": "#!/bin/sh\n", "iptables": _FIREWALL}
        for name, text in {**programs, "ip6tables": _FIREWALL, "nft": _FIREWALL}.items():
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        self.environment = {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "CALLS": str(self.folder / "calls"),
            "RESTORE": str(self.behaviour),
            "FIREWALL": str(self.folder / "firewall"),
            "NRI_RESTORE_RUNC_CONF": str(self.folder / "restore-runc.conf"),
        }
        self.prefix: list[str] = []
        """What it is started by."""
        self.configure(plans=str(self.plans), wait_s=1, restore_s=20)

    def configure(self, **settings: str | int) -> None:
        self.settings |= settings
        lines = "".join(f"{key}={value}\n" for key, value in self.settings.items())
        (self.folder / "restore-runc.conf").write_text(lines)

    def config(self, kind: str) -> None:
        document = {"annotations": {"io.kubernetes.cri.container-type": kind}}
        (self.bundle / "config.json").write_text(json.dumps(document, separators=(",", ":")))

    def behaves(self, script: str) -> None:
        """What the runtime's ``restore`` does; ``restored`` is the pid it reports, ``status`` its exit status."""
        self.behaviour.write_text(script + "\n")

    def prepare(self, status: str | None = "ok", **files: str) -> None:
        """A plan with this status, and further files."""
        self.plan.mkdir(exist_ok=True)
        (self.plan / "work").mkdir(exist_ok=True)
        usual = {"lock": "", "argv": "--image-path\n/images of it\n", "namespaces": "", "keep": f"{self.folder}/kept\n"}
        for name, text in {**usual, **({} if status is None else {"status": f"{status}\n"}), **files}.items():
            (self.plan / name).write_text(text)

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self.prefix, RUNTIME / "restore-runc", *words],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*words)
        out, err = process.communicate(timeout=120)
        return subprocess.CompletedProcess(words, process.returncode, out, err)

    def create(self, *words: str) -> subprocess.CompletedProcess[str]:
        """As containerd's shim calls it (go-runc)."""
        return self.run(*self.create_words(*words))

    def create_words(self, *words: str) -> tuple[str, ...]:
        files = ("--root", "/run/root", "--log", str(self.log_file), "--log-format", "json")
        return (*files, "create", *words, "--bundle", str(self.bundle), "--pid-file", f"{self.bundle}/init.pid", ID)

    @property
    def log_file(self) -> Path:
        return self.folder / "log.json"

    @property
    def logged(self) -> list[str]:
        """Messages in the JSON log."""
        lines: list[dict[str, Any]] = [json.loads(line) for line in self.log_file.read_text().splitlines()]
        assert all(line["level"] == "error" and line["time"] for line in lines)
        return [line["msg"] for line in lines]

    @property
    def calls(self) -> list[list[str]]:
        """Arguments of every call of the runtime."""
        file = self.folder / "calls"
        text = file.read_text() if file.exists() else ""
        return [line.split("\0")[:-1] for line in text.split("\1")[:-1]]

    @property
    def firewall(self) -> list[str]:
        file = self.folder / "firewall"
        return file.read_text().splitlines() if file.exists() else []


@pytest.fixture
def wrapper(tmp_path: Path) -> Wrapper:
    return Wrapper(tmp_path)
