"""An inspection as one HTML page that needs nothing else: no script, no font, no picture from elsewhere.

Every text of the checkpoint passes through ``h``; the page's own policy forbids whatever might slip through to load or
run anything.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape
from pathlib import Path
from typing import Final

from kubectl_restore.inspect.facts import Inspection, Process
from kubectl_restore.inspect.memory_map import css_class, picture_areas, picture_kinds, picture_part
from kubectl_restore.inspect.tree import command_of
from kubectl_restore.printing import count_of, quoted_words, size_of
from shared.printable import safe

POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
PICTURES_MAX: Final = 500
"""Processes whose memory is pictured: a page of more would be slow to open on a phone."""
AREAS_MAX: Final = 500
OPENED_MAX: Final = 8
"""With so few processes all are shown open."""
FILES_MAX: Final = 5000
USERS_MAX: Final = 24


def h(text: str) -> str:
    """A text of the checkpoint for the page: harmless in HTML and attributes, control characters spelt out."""
    return escape(safe(text))


def page_of(found: Inspection) -> str:
    container = found.container
    title = container.name or container.id
    where = f"Container of pod <b>{h(container.namespace)}/{h(container.pod)}</b>" if container.pod else "Container"
    return "".join(
        [
            '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{h(title)}: checkpoint</title>",
            f"<style>{Path(__file__).with_name('page.css').read_text()}</style></head><body>",
            f'<header><h1>{h(title)}</h1><p class="quiet">{where}, frozen {_moment(found)}</p></header>',
            _numbers(found),
            _lost(found),
            _taken(found),
            _processes(found),
            _memory(found),
            _sockets(found),
            _files(found),
            _mounts(found),
            _rights(found),
            f"<footer>{h(found.archive.name)} · kubectl restore inspect</footer></body></html>\n",
        ]
    )


def _moment(found: Inspection) -> str:
    moment = found.container.checkpointed_at
    return moment.strftime("%Y-%m-%d %H:%M:%S UTC") if moment else "at a time not recorded"


def _section(name: str, title: str, content: str, css: str = "") -> str:
    css = f' class="{css}"' if css else ""
    return f'<section id="{name}"{css}><h2>{title}</h2>{content}</section>'


def _numbers(found: Inspection) -> str:
    opened = sum(len(process.files) for process in found.processes)
    cards = (
        ("processes", str(len(found.processes)), "process" if len(found.processes) == 1 else "processes"),
        ("memory", size_of(found.memory.dumped_bytes), "memory dumped"),
        ("files", str(opened), "open files"),
        ("sockets", str(len(found.sockets)), "socket" if len(found.sockets) == 1 else "sockets"),
        ("mounts", str(sum(mount.external for mount in found.mounts)), "mounts from outside"),
    )
    return (
        '<nav class="numbers">'
        + "".join(
            f'<a href="#{name}"><b>{number}</b><span class="quiet">{words}</span></a>' for name, number, words in cards
        )
        + "</nav>"
    )


def _lost(found: Inspection) -> str:
    certain = any(loss.certain for loss in found.losses)
    items = "".join(
        f"<li>{'' if loss.certain else '<span class=quiet>if any: </span>'}{h(loss.sentence)}</li>"
        for loss in found.losses
    )
    return _section("lost", "Will be lost", f"<ul>{items}</ul>", "lost" if certain else "")


def _taken(found: Inspection) -> str:
    engine, image = found.engine, found.container.image
    machine = ", ".join(
        part
        for part in (
            f"Linux {engine.kernel}" if engine.kernel else "",
            engine.architecture,
            engine.cpu or "",
            f"cgroup v{engine.cgroup_version}" if engine.cgroup_version else "",
        )
        if part
    )
    changes = found.root_changes
    changed = "none in the archive" if changes.diff_bytes is None else size_of(changes.diff_bytes)
    deleted = f", {count_of(changes.deleted_paths, 'path')} deleted" if changes.deleted_paths else ""
    frozen = None if engine.frozen_seconds is None else f"{engine.frozen_seconds * 1000:.0f} ms"
    shared: dict[str, list[str]] = {}
    for namespace in found.namespaces:
        shared.setdefault(namespace.shared_with, []).append(namespace.kind)
    rows = (
        ("image", image.name or image.reference),
        ("image digest", image.digest),
        ("command", quoted_words(found.container.command)),
        ("engine", f"{engine.name}{f' ({engine.runtime})' if engine.runtime else ''}"),
        ("CRIU", engine.criu_version),
        ("CRIU plugins", ", ".join(engine.plugins)),
        ("machine", machine),
        ("stood still for", frozen),
        ("host name", found.container.hostname),
        ("changed files", changed + deleted),
        ("namespaces", "; ".join(f"{who}: {', '.join(kinds)}" for who, kinds in shared.items())),
        ("container", found.container.id),
    )
    entries = "".join(f"<dt>{name}</dt><dd>{h(value)}</dd>" for name, value in rows if value)
    return _section("taken", "How it was taken", f"<dl>{entries}</dl>")


def _processes(found: Inspection) -> str:
    depths: dict[int, int] = {}
    parts = []
    for number, process in enumerate(_family_order(found.processes)):
        depths[process.pid] = depths.get(process.parent, -1) + 1
        opened = len(found.processes) <= OPENED_MAX
        parts.append(_process(process, depths[process.pid], opened=opened, pictured=number < PICTURES_MAX))
    return _section("processes", "Processes", _legend(found) + "".join(parts))


def _legend(found: Inspection) -> str:
    kinds = "".join(f'<li><i class="{css_class(kind.kind)}"></i>{h(kind.kind)}</li>' for kind in found.memory.kinds)
    words = "Each picture is one address space, low addresses left. Solid: in the checkpoint. Pale: only mapped."
    return f'<p class="quiet">{words}</p><ul class="legend">{kinds}</ul>'


def _family_order(processes: Sequence[Process]) -> Iterator[Process]:
    """Each process right after its parent and elder siblings' families."""
    children: dict[int, list[Process]] = {}
    known = {process.pid for process in processes}
    for process in processes:
        children.setdefault(process.parent if process.parent in known else 0, []).append(process)
    waiting = list(reversed(children.get(0, [])))
    while waiting:
        process = waiting.pop()
        yield process
        waiting += reversed(children.get(process.pid, []))


def _process(process: Process, depth: int, *, opened: bool, pictured: bool) -> str:
    state = "" if process.state == "alive" else f' <span class="tag warn">{h(process.state)}</span>'
    memory = f' <span class="tag">{size_of(process.memory.dumped_bytes)}</span>' if process.memory else ""
    head = f'<span class="quiet">{process.pid}</span> <code>{h(command_of(process))}</code>{memory}{state}'
    about = [process.executable or "executable not recorded", f"in {process.working_directory or '?'}"]
    if process.credentials:
        about.append(f"uid {process.credentials.uid}, gid {process.credentials.gid}")
    if process.threads > 1:
        about.append(count_of(process.threads, "thread"))
    if process.files:
        about.append(count_of(len(process.files), "open file"))
    body = [f'<p class="quiet">{h(", ".join(about))}</p>'] if process.credentials else []
    if process.memory and pictured:
        body.append(picture_areas(process.areas))
        body.append(_areas(process))
    return (
        f'<details class="process" style="--depth:{depth}"{" open" if opened else ""}>'
        f"<summary>{head}</summary><div>{''.join(body)}</div></details>"
    )


def _areas(process: Process) -> str:
    rows = (
        (
            f'<i class="{css_class(area.kind)}"></i>{h(area.kind)}',
            h(area.path or ""),
            f"<code>{area.access}</code>",
            f"{area.start:x}",
            size_of(area.dumped_bytes) if area.dumped_bytes else "0",
            size_of(area.end - area.start),
        )
        for area in process.areas[:AREAS_MAX]
    )
    heads = ("kind", "file", "access", "address", "dumped", "mapped")
    rest = len(process.areas) - AREAS_MAX
    more = f'<p class="quiet">and {count_of(rest, "more area")}</p>' if rest > 0 else ""
    areas = _table(heads, rows, names=(1, 3), kinds=(0,), amounts=(4, 5), wide=(2, 3))
    count = count_of(len(process.areas), "memory area")
    return f'<details><summary class="quiet">{count}</summary>{areas}{more}</details>'


def _memory(found: Inspection) -> str:
    memory = found.memory
    rows = (
        (
            f'<i class="{css_class(kind.kind)}"></i>{h(kind.kind)}',
            picture_part(kind.kind, kind.dumped_bytes, max(each.dumped_bytes for each in memory.kinds)),
            size_of(kind.dumped_bytes) if kind.dumped_bytes else "0",
            size_of(kind.mapped_bytes),
        )
        for kind in memory.kinds
    )
    words = f"{size_of(memory.dumped_bytes)} dumped of {size_of(memory.mapped_bytes)} mapped"
    table = _table(("kind", "", "dumped", "mapped"), rows, kinds=(0,), amounts=(2, 3))
    segments = (
        (str(segment.number), ", ".join(map(str, segment.processes)), size_of(segment.dumped_bytes))
        for segment in found.shared_segments
    )
    shared = ""
    if found.shared_segments:
        shared = "<h3>Shared segments</h3>" + _table(("number", "processes", "dumped"), segments, amounts=(2,))
    return _section("memory", "Memory", f'<p class="quiet">{words}</p>{picture_kinds(memory)}{table}{shared}')


def _sockets(found: Inspection) -> str:
    rows = (
        (
            h(socket.protocol),
            f'<span class="tag{" warn" if socket.state == "established" else ""}">{h(socket.state)}</span>',
            h(socket.local),
            h(socket.remote or ""),
            ", ".join(map(str, socket.processes)),
        )
        for socket in found.sockets
    )
    heads = ("protocol", "state", "local", "remote", "processes")
    table = _table(heads, rows, names=(2, 3), wide=(4,))
    return _section("sockets", "Sockets", table if found.sockets else '<p class="quiet">none</p>')


def _files(found: Inspection) -> str:
    """Every open or mapped file once, with who uses it."""
    users: dict[tuple[str, str], dict[str, None]] = {}
    for process in found.processes:
        for file in process.files:
            users.setdefault((file.name, file.kind), {})[f"{process.pid} fd {file.descriptor}"] = None
        for area in process.areas:
            if area.path:
                users.setdefault((area.path, "mapped"), {})[str(process.pid)] = None
    rows = ((h(name), h(kind), h(_listed(list(used)))) for (name, kind), used in sorted(users.items())[:FILES_MAX])
    rest = len(users) - FILES_MAX
    more = f'<p class="quiet">and {count_of(rest, "more file")}</p>' if rest > 0 else ""
    return _section("files", "Files", _table(("file", "kind", "used by process"), rows, names=(0,), kinds=(1,)) + more)


def _listed(users: Sequence[str]) -> str:
    rest = len(users) - USERS_MAX
    return ", ".join(users[:USERS_MAX]) + (f" and {rest} more" if rest > 0 else "")


def _mounts(found: Inspection) -> str:
    def rows(external: bool) -> Iterator[tuple[str, ...]]:
        for mount in found.mounts:
            if mount.external == external:
                access = "read-only" if mount.readonly else "writable"
                yield h(mount.path), h(mount.volume or mount.source), h(mount.type), access

    heads = ("path", "from", "type", "access")
    outside = _table(heads, rows(True), names=(0,), kinds=(3,), wide=(2,))
    own = _table(heads, rows(False), names=(0,), kinds=(3,), wide=(2,))
    count = sum(not mount.external for mount in found.mounts)
    more = f'<details><summary class="quiet">{count_of(count, "mount")} of its own</summary>{own}</details>'
    return _section("mounts", "Mounts the pod must provide", outside + more)


def _rights(found: Inspection) -> str:
    groups: dict[object, list[int]] = {}
    for process in found.processes:
        if process.credentials:
            groups.setdefault(process.credentials, []).append(process.pid)
    parts = []
    for process in found.processes:
        held = process.credentials
        pids = groups.pop(held, None) if held else None
        if held is None or pids is None:
            continue
        gains = sorted(set(held.bounding) - set(held.effective))
        rows = (
            ("processes", "all" if len(pids) == len(found.processes) else ", ".join(map(str, pids))),
            ("user", f"uid {held.uid}, gid {held.gid}, groups {', '.join(map(str, held.groups)) or 'none'}"),
            ("capabilities", " ".join(held.effective) or "none"),
            ("could gain", " ".join(gains)),
            ("seccomp", held.seccomp),
            ("new privileges", "no" if held.no_new_privileges else "may be gained"),
            ("LSM profile", held.lsm_profile),
        )
        entries = "".join(f"<dt>{name}</dt><dd>{h(value)}</dd>" for name, value in rows if value)
        parts.append(f"<dl>{entries}</dl>")
    return _section("rights", "Rights", "<hr>".join(parts))


def _table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    names: Sequence[int] = (),
    kinds: Sequence[int] = (),
    amounts: Sequence[int] = (),
    wide: Sequence[int] = (),
) -> str:
    """``rows`` are HTML; ``wide`` columns are left out on a narrow screen."""

    def css(index: int) -> str:
        columns = (("name", names), ("kind", kinds), ("amount", amounts), ("wide", wide))
        classes = [name for name, of in columns if index in of]
        return f' class="{" ".join(classes)}"' if classes else ""

    head = "".join(f"<th{css(index)}>{text}</th>" for index, text in enumerate(heads))
    body = "".join(
        "<tr>" + "".join(f"<td{css(index)}>{cell}</td>" for index, cell in enumerate(row)) + "</tr>" for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
