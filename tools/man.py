"""Manual pages, from the same declarations as docs/commands.md: one of each program, and one of each verb of kubectl's.

Source: man(7), man-pages(7).
"""

from __future__ import annotations

import inspect
import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

from tools.docs import commands, hidden_options, rows

Command = Callable[..., object]
SECTIONS = {"kubectl restore": 1, "nri-restore": 8}
PAGES_OF_VERBS = {"kubectl restore"}
"""The other program has a page for all."""
_ENDS = {
    "kubectl restore": [
        *(
            ".SH EXIT STATUS",
            ".TP",
            ".B 0",
            "Done.",
            ".TP",
            ".B 1",
            "It failed; standard error has one line why.",
            ".TP",
        ),
        *(".B 2", r"Wrong usage. \fBcheck\fR also exits with 2, where it could not tell.", ".SH ENVIRONMENT", ".TP"),
        *(".B KUBECONFIG", "Kubeconfig files, as kubectl reads them.", ".TP", ".B TMPDIR"),
        *("Where downloads lie while they are used, instead of", r".IR ~/.cache/kubectl\-restore ."),
        *(".SH SEE ALSO", ".BR kubectl (1),", r".BR nri\-restore (8)"),
    ],
    "nri-restore": [
        *(".SH FILES", r".I /etc/nri\-restore/config.toml", ".br", r".I /etc/nri\-restore/restore\-runc.conf"),
        *(".SH SEE ALSO", r".BR kubectl\-restore (1),", ".BR criu (8),", ".BR runc (8)"),
    ],
}


def pages(program: str, summary: str, version: str) -> Iterator[tuple[str, str]]:
    """File name and roff of each page of ``program``; ``summary`` is its own line in NAME."""
    section = SECTIONS[program]
    title = f'"{section}" "{_date()}" "nri\\-restore {escaped(version)}"'
    name = program.replace(" ", "-")
    own = [(words, function) for words, function in commands() if words.startswith(f"{program} ")]
    apart = program in PAGES_OF_VERBS
    lines = [f".TH {escaped(name.upper())} {title}", ".SH NAME", escaped(f"{name} - {summary}"), ".SH SYNOPSIS"]
    lines += [f".B {escaped(program)}", ".I command", "[options]", ".SH COMMANDS"]
    for words, function in own:
        if apart:
            lines += [".TP", f".BR {_page(words)} ({section})", escaped(_lines(function)[0])]
        else:
            lines += [f".SS {escaped(words)}", *_paragraphs(function), *_options(function)]
    yield f"{name}.{section}", "\n".join([*lines, *_ENDS[program]]) + "\n"
    for words, function in own if apart else ():
        verb = words.replace(" ", "-")
        lines = [f".TH {escaped(verb.upper())} {title}", ".SH NAME"]
        lines += [f"{escaped(verb)} \\- {escaped(_headline(function))}", ".SH SYNOPSIS", f".B {escaped(words)}"]
        lines += [f".I {escaped(argument)}" for argument, _ in rows(function) if not argument.startswith("-")]
        lines += ["[options]", ".SH DESCRIPTION", *_paragraphs(function), ".SH OPTIONS", *_options(function)]
        lines += [".SH SEE ALSO", f".BR {_page(name)} ({section})"]
        yield f"{verb}.{section}", "\n".join(lines) + "\n"


def escaped(text: str) -> str:
    text = text.replace("\\", "\\e").replace("-", "\\-").replace("`", "")
    return "\n".join(f"\\&{line}" if line.startswith((".", "'")) else line for line in text.splitlines())


def _page(words: str) -> str:
    return escaped(words.replace(" ", "-"))


def _date() -> str:
    """Of the build (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    moment = int(os.environ.get("SOURCE_DATE_EPOCH", time.time()))
    return datetime.fromtimestamp(moment, UTC).date().isoformat()


def _lines(function: Command) -> list[str]:
    return inspect.cleandoc(function.__doc__ or "").splitlines()


def _headline(function: Command) -> str:
    """As a NAME section has it: without a capital and a full stop."""
    first = _lines(function)[0].removesuffix(".")
    return first[:1].lower() + first[1:]


def _paragraphs(function: Command) -> Iterator[str]:
    for line in _lines(function):
        yield escaped(line) if line else ".PP"


def _options(function: Command) -> Iterator[str]:
    for option, meaning in rows(function):
        yield from (".TP", f".B {escaped(option)}", escaped(meaning))
    if hidden := list(hidden_options(function)):
        yield from (
            ".PP",
            "As in kubectl, whose",
            r".B kubectl options",
            f"explains them: {escaped(', '.join(hidden))}.",
        )
