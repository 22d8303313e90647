"""Manual pages, from the same declarations as docs/commands.md."""

from __future__ import annotations

import inspect

from tools.docs import commands, rows


def escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())


def page(program: str, section: int, summary: str, version: str) -> str:
    """One page of roff with every command of ``program`` (``nri-restore``, ``kubectl restore``)."""
    name = program.replace(" ", "-")
    lines = [f'.TH {name.upper()} {section} "" "nri-restore {version}"', ".SH NAME", escaped(f"{name} - {summary}")]
    lines += [".SH SYNOPSIS", f".B {escaped(program)}", ".I command", "[options]", ".SH COMMANDS"]
    for words, function in commands():
        if not words.startswith(f"{program} "):
            continue
        lines += [f".SS {escaped(words)}", escaped(inspect.cleandoc(function.__doc__ or "")).replace("\n\n", "\n.PP\n")]
        for row in rows(function):
            option, _, meaning = row.strip("| ").partition(" | ")
            lines += [".TP", f".B {escaped(option)}", escaped(meaning)]
    if section == 8:
        lines += [".SH FILES", ".I /etc/nri\\-restore/config.toml", ".br", ".I /etc/nri\\-restore/restore\\-runc.conf"]
    return "\n".join(lines) + "\n"
