"""Every reason code that the product can give, found in its source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

ROOT: Final = "RestoreError"
CODE: Final = re.compile(r"(?:[A-Z][a-z0-9]*)+")
_IN_SHELL: Final = re.compile(r"""(?:(?:fail|printf)\s+["']|status="undecided )(\w+): """)


def python_codes(files: Iterable[Path]) -> dict[str, str]:
    """Codes given to RestoreError or a subclass: as first argument, as ``reason=``, as a default of that name, or as
    the field ``reason`` of a record, or as ``too_large=``; each with the file it was found in."""
    trees = {file: ast.parse(file.read_text()) for file in files}
    errors, records = _error_classes(trees.values()), _records(trees.values())
    found: dict[str, str] = {}
    for file, tree in trees.items():
        for code in _codes(tree, errors, records):
            found.setdefault(code, str(file))
    return found


def shell_codes(files: Iterable[Path]) -> dict[str, str]:
    """``fail "Code: sentence"``, ``printf 'Code: …'`` and ``status="undecided Code: …"``."""
    return {code: str(file) for file in files for code in _IN_SHELL.findall(file.read_text()) if CODE.fullmatch(code)}


def _error_classes(trees: Iterable[ast.AST]) -> set[str]:
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    errors = {ROOT}
    while more := {each.name for each in classes if errors & {_name(base) for base in each.bases}} - errors:
        errors |= more
    return errors


def _records(trees: Iterable[ast.AST]) -> dict[str, int]:
    """Classes with an annotated field ``reason``, and its place among the fields."""
    found = {}
    for tree in trees:
        for node in ast.walk(tree):
            if isinstance(node, ast.ClassDef):
                fields = [
                    each.target.id
                    for each in node.body
                    if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name)
                ]
                if "reason" in fields:
                    found[node.name] = fields.index("reason")
    return found


def _codes(tree: ast.AST, errors: set[str], records: dict[str, int]) -> Iterator[str]:
    constants = {
        target.id: node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Assign | ast.AnnAssign) and node.value is not None
        for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
        if isinstance(target, ast.Name)
    }

    def resolved(value: ast.expr) -> ast.expr:
        return constants.get(value.id, value) if isinstance(value, ast.Name) else value

    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            names = [each.arg for each in node.args.kwonlyargs]
            yield from _text(
                [default for name, default in zip(names, node.args.kw_defaults, strict=True) if name == "reason"]
            )
        if not isinstance(node, ast.Call):
            continue
        name = _name(node.func)
        own = name == "__init__" and isinstance(node.func, ast.Attribute)
        if (name in errors or own) and node.args:
            yield from _text([resolved(node.args[0])])
        if name in records and len(node.args) > records[name]:
            yield from _text([node.args[records[name]]])
        words = {"too_large"} | ({"reason"} if name in errors | set(records) or own else set())
        yield from _text([resolved(word.value) for word in node.keywords if word.arg in words])


def _text(values: Iterable[ast.expr | None]) -> Iterator[str]:
    for value in values:
        for each in ast.walk(value) if value is not None else ():
            if isinstance(each, ast.Constant) and isinstance(each.value, str) and CODE.fullmatch(each.value):
                yield each.value


def _name(node: ast.expr) -> str:
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""
