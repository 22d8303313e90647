from __future__ import annotations

import io
import re

import pytest

from kubectl_restore import printing
from kubectl_restore.printing import Branch, Piece, count_of, print_tree, shortened, size_of
from shared.printable import safe


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.delenv("NO_COLOR", raising=False)
    return Terminal()


def tree() -> Branch:
    root = Branch.of(Piece("root", "strong"))
    first = root.add("first ", Piece("bad", "bad"))
    first.add("leaf")
    root.add("second")
    return root


def test_plain_tree() -> None:
    out = io.StringIO()
    print_tree(tree(), out)
    assert out.getvalue() == "root\n├── first bad\n│   └── leaf\n└── second\n"


def test_colours_on_a_terminal(terminal: Terminal) -> None:
    print_tree(tree(), terminal)
    assert "\x1b[1;31mbad" in terminal.getvalue()
    assert re.sub(r"\x1b\[[0-9;]*m", "", terminal.getvalue()) == "root\n├── first bad\n│   └── leaf\n└── second\n"


@pytest.mark.parametrize(("variable", "value"), [("NO_COLOR", "1"), ("TERM", "dumb")])
def test_no_colours_when_unwanted(
    terminal: Terminal, monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    print_tree(tree(), terminal)
    assert "\x1b" not in terminal.getvalue()


def test_no_colours_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    out = io.StringIO()
    print_tree(tree(), out)
    assert "\x1b" not in out.getvalue()


def test_long_lines_go_on_below_their_start(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    root = Branch.of("root")
    root.add("one two three four five six seven eight nine ten")
    root.add("x" * 50)
    print_tree(root, terminal)
    assert terminal.getvalue().splitlines() == [
        "root",
        "├── one two three four five six seven",
        "│   eight nine ten",
        "└── " + "x" * 36,
        "    " + "x" * 14,
    ]


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain ö €", "plain ö €"),
        ("\x1b[2J", "\\x1b[2J"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\u202eevil", "\\u202eevil"),
        ("\x9b31m", "\\x9b31m"),
        ("\u2028", "\\u2028"),
    ],
)
def test_texts_cannot_move_the_cursor(text: str, shown: str) -> None:
    assert safe(text) == shown
    out = io.StringIO()
    print_tree(Branch.of("", Piece(text, "bad")), out)
    assert out.getvalue() == shown + "\n"


def test_markup_of_rich_is_text(terminal: Terminal) -> None:
    print_tree(Branch.of("[bold red]name[/] :smile:"), terminal)
    assert "[bold red]name[/] :smile:" in terminal.getvalue()


def test_chain_of_thousands_prints() -> None:
    root = branch = Branch.of("0")
    for number in range(5000):
        branch = branch.add(str(number))
    out = io.StringIO()
    print_tree(root, out)
    assert out.getvalue().count("\n") == 5001


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 KiB"),
        (4096, "4 KiB"),
        (1536, "1.5 KiB"),
        (150_000, "146 KiB"),
        (5 << 30, "5 GiB"),
        (1 << 62, "4096 PiB"),
    ],
)
def test_sizes(size: int, text: str) -> None:
    assert size_of(size) == text


def test_counts_and_cuts() -> None:
    assert (count_of(1, "process", "processes"), count_of(2, "file")) == ("1 process", "2 files")
    assert (shortened("abc", 3), shortened("abcd", 3)) == ("abc", "ab…")
    assert printing.quoted_words(["a b", "c"]) == "'a b' c"
