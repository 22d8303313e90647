"""Edits of files that are not ours: shown as a diff, made with a backup, taken back byte for byte."""

from __future__ import annotations

import base64
import difflib
import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from shared.errors import RestoreError

BEGIN = "# --- nri-restore: written by `nri-restore node configure`, removed by `nri-restore node unconfigure` ---\n"
END = "# --- nri-restore: end ---\n"
MARK = "nri-restore: before:"
"""In the comment of a line of ours: what its value was follows, or nothing where there was no such line."""
_MARKED = re.compile(rf"^(?P<name>[ \t]*[\w.\"-]+[ \t]*=[ \t]*).*# {MARK} ?(?P<before>.*)\n", re.MULTILINE)


class ConfigureRefused(RestoreError):
    """The runtime's configuration says something that cannot be edited safely; nothing was changed."""


def read(path: Path) -> str | None:
    """The file's text, None where there is none; raises ConfigureRefused."""
    try:
        return path.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigureRefused("ConfigUnreadable", f"{path} cannot be read: {error}") from error


def block(text: str) -> str:
    return f"{BEGIN}{text}{END}"


def without_block(text: str) -> str:
    """``text`` without what ``block`` put there, and with the values that a line marked by MARK had before."""
    text = _MARKED.sub(lambda line: f"{line['name']}{line['before']}\n" if line["before"] else "", text)
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    return before + after if begin and end else text


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def write(path: Path, text: str | None) -> None:
    """Replaces a file in one step, its mode kept; None removes it. A symlink's target is what is written."""
    path = path.resolve()
    if text is None:
        path.unlink(missing_ok=True)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mode = path.stat().st_mode & 0o7777 if path.exists() else 0o644
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        Path(name).rename(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


@dataclass
class Record:
    """What was changed on this node: per file the text before (None: there was no file) and what we wrote."""

    path: Path
    before: dict[Path, str | None] = field(default_factory=dict)
    written: dict[Path, str] = field(default_factory=dict)
    """SHA-256 of the text after the change, empty where the file was removed."""
    folders: list[Path] = field(default_factory=list)
    """Folders made for the files, the deepest first."""

    @classmethod
    def load(cls, path: Path) -> Record:
        """Raises ConfigureRefused when the record is damaged: what was there before is in it."""
        text = read(path)
        if text is None:
            return cls(path)
        try:
            document = json.loads(text)
            record = cls(path)
            for name, entry in document["files"].items():
                before = entry["before"]
                record.before[Path(name)] = None if before is None else base64.b64decode(before).decode()
                record.written[Path(name)] = entry["written"]
            record.folders = [Path(each) for each in document["folders"]]
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigureRefused(
                "RecordDamaged", f"{path}, which holds what the files were before, is damaged: {error}"
            ) from error
        return record

    def save(self) -> None:
        if not self.before:
            write(self.path, None)
            return
        files = {
            str(path): {
                "before": None if text is None else base64.b64encode(text.encode()).decode(),
                "written": self.written[path],
            }
            for path, text in self.before.items()
        }
        document = {"files": files, "folders": [str(each) for each in self.folders]}
        write(self.path, json.dumps(document, indent=1) + "\n")
        self.path.chmod(0o600)

    def original(self, path: Path) -> str | None:
        """What the file would be without us: the backup, or what was made of it since without our block."""
        now = read(path)
        if path not in self.before:
            return now
        if now is None:
            return None
        if digest(now) == self.written[path]:
            return self.before[path]
        rest = without_block(now)
        return None if not rest.strip() and self.before[path] is None else rest


def apply(record: Record, wanted: Mapping[Path, str | None]) -> None:
    """Writes ``wanted``; recorded first, so that a crash in between can still be taken back."""
    for path, text in wanted.items():
        original = record.original(path)
        for folder in (path.parent, *path.parent.parents):
            if not folder.exists() and folder not in record.folders:
                record.folders.append(folder)
        record.before[path] = original
        record.written[path] = "" if text is None else digest(text)
    record.save()
    for path, text in wanted.items():
        if read(path) != text:
            write(path, text)


def revert(record: Record) -> dict[Path, str | None]:
    """What every changed file becomes when all is taken back."""
    return {path: record.original(path) for path in record.before}


def forget(record: Record) -> None:
    """Drops the record, and folders that were made and are empty again."""
    for folder in record.folders:
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()
    record.before.clear()
    record.written.clear()
    record.save()


def diff(wanted: Mapping[Path, str | None]) -> str:
    """A unified diff from what the files are to ``wanted``; empty when nothing changes."""
    parts: list[str] = []
    for path, text in wanted.items():
        now = read(path)
        if now == text:
            continue
        old, new = (now or "").splitlines(keepends=True), (text or "").splitlines(keepends=True)
        source = "/dev/null" if now is None else str(path)
        target = "/dev/null" if text is None else str(path)
        parts += [
            line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n"
            for line in difflib.unified_diff(old, new, source, target)
        ]
    return "".join(parts)
