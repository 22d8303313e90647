from __future__ import annotations

import html.parser
import re
from pathlib import Path

import pytest

from kubectl_restore.inspect import page as pages
from kubectl_restore.inspect.page import page_of
from shared.criu import criu_pb2 as pb
from tests.support.checkpoints import SyntheticDump, config_dump, containerd
from tests.support.inspected import regular, rich_dump
from tests.unit.kubectl_restore.inspect.conftest import Gather

EVIL = "\"><script src=//evil.example/x></script><img src=x onerror=alert(1)>'</style>"


class Reader(html.parser.HTMLParser):
    """Every element with its attributes, and whether all of them are closed."""

    VOID = frozenset({"meta", "hr"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.wrong: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def evil_dump() -> SyntheticDump:
    """Every text that a checkpoint can choose is an attack."""
    evil = EVIL.encode()
    dump = rich_dump([evil + b"\0\x1b[31m\0", evil])
    dump.core(1).tc.comm = evil
    dump.core(1).thread_core.creds.lsm_profile = evil
    dump.add_file(regular(90, "/" + EVIL), descriptor=90)
    dump.add_file(
        pb.FileEntry(type=5, id=91, usk=pb.UnixSkEntry(id=91, ino=91, type=1, state=10, name=b"\0" + evil)),
        descriptor=91,
    )
    dump.images["memfd.img"][0].name = evil  # type: ignore[attr-defined]
    dump.images["files.img"][0].reg.name = b"/" + evil  # type: ignore[attr-defined]
    dump.add_mount("/" + EVIL, source=evil)
    dump.images["utsns-12.img"] = [pb.UtsnsEntry(nodename=evil, domainname=b"")]
    return dump


def evil_files() -> dict[str, bytes]:
    files = containerd(evil_dump(), config=config_dump(id=EVIL, name=EVIL, runtime=EVIL))
    return {
        name: content.replace(b'"app"', b'"%s"' % EVIL.replace('"', '\\"').encode())
        if name in ("spec.dump", "status.dump")
        else content
        for name, content in files.items()
    }


def test_elements_are_closed_in_order(inspected: Gather) -> None:
    reader = Reader(page_of(inspected(containerd(rich_dump()))))
    assert (reader.open, reader.wrong) == ([], [])


def test_no_text_of_the_checkpoint_becomes_an_element(inspected: Gather) -> None:
    text = page_of(inspected(evil_files()))
    reader = Reader(text)
    plain = Reader(page_of(inspected(containerd(rich_dump()))))
    assert {tag for tag, _ in reader.elements} <= {tag for tag, _ in plain.elements} | {"hr"}
    assert (reader.open, reader.wrong) == ([], [])
    assert text.count(EVIL.split(">")[1][:10]) == 0
    assert text.count("evil.example") > 8
    assert "\x1b" not in text


def test_no_attribute_loads_or_runs_anything(inspected: Gather) -> None:
    reader = Reader(page_of(inspected(evil_files())))
    names = {name for _, attributes in reader.elements for name in attributes}
    assert [name for name in names if name.startswith("on") or name in ("src", "srcset", "data", "action")] == []
    links = [attributes["href"] for tag, attributes in reader.elements if "href" in attributes]
    assert all(link is not None and link.startswith("#") for link in links)
    assert not {"script", "iframe", "object", "embed", "link", "img", "base", "form"} & {
        tag for tag, _ in reader.elements
    }


def test_policy_comes_before_everything_that_it_forbids(inspected: Gather) -> None:
    text = page_of(inspected(containerd()))
    assert 0 < text.index("Content-Security-Policy") < text.index("<title>") < text.index("<style>")
    assert "default-src 'none'" in text


def test_style_sheet_loads_nothing() -> None:
    sheet = Path(pages.__file__).with_name("page.css").read_text()
    assert not re.search(r"url\(|@import|//", sheet)


def test_every_link_leads_somewhere(inspected: Gather) -> None:
    elements = Reader(page_of(inspected(containerd(rich_dump())))).elements
    ids = {attributes["id"] for _, attributes in elements if "id" in attributes}
    assert {f"#{name}" for name in ids} >= {each["href"] for _, each in elements if "href" in each}


def test_many_processes_are_folded_and_most_pictures_left_out(
    inspected: Gather, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pages, "PICTURES_MAX", 3)
    text = page_of(inspected(rich_dump([b"x\0"] * 12)))
    assert text.count('<details class="process"') == 12
    assert text.count('<svg class="map"') == 3
    assert '<details class="process" style="--depth:0" open>' not in text


def test_families_stay_together(inspected: Gather) -> None:
    dump = rich_dump([b"one\0", b"two\0", b"three\0", b"four\0"])
    dump.images["pstree.img"][3].ppid = 2  # type: ignore[attr-defined]
    text = page_of(inspected(dump))
    order = re.findall(r"--depth:(\d).*?<code>(\w+)</code>", text)
    assert order == [("0", "one"), ("1", "two"), ("2", "four"), ("1", "three")]


def test_dead_process_has_a_line(inspected: Gather) -> None:
    dump = SyntheticDump.of_processes(2)
    dump.core(2).tc.task_state = 6
    assert '<span class="tag warn">zombie</span>' in page_of(inspected(dump))
