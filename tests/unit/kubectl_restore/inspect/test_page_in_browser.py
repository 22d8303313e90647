"""The page as a real browser shows it: on a phone and on a desk, by day and by night, with nothing else reachable."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from kubectl_restore.inspect.gather import gather
from kubectl_restore.inspect.page import page_of
from shared.archive import open_checkpoint
from tests.support.browser import Browser, Page
from tests.support.checkpoints import containerd, tar_of
from tests.support.inspected import regular, rich_dump
from tests.unit.kubectl_restore.inspect.test_page import evil_files

OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true)"
TOO_WIDE = """
[...document.body.querySelectorAll('*')]
  .filter(each => each.getBoundingClientRect().right > document.documentElement.clientWidth + 1)
  .map(each => each.outerHTML.slice(0, 120))
"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("profile")) as started:
        yield started


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """An ordinary page with long names and a deep tree, and one made of attacks."""
    folder = tmp_path_factory.mktemp("pages")
    dump = rich_dump([b"/usr/bin/" + b"very-long-name" * 12 + b"\0--flag=" + b"x" * 300 + b"\0"] * 14)
    for number, entry in enumerate(dump.images["pstree.img"], 1):
        entry.ppid = number - 1  # type: ignore[attr-defined]
    dump.add_file(regular(90, "/data" + "/unbroken" * 30 + "x" * 200), descriptor=90)
    pages = {}
    for name, files in (("ordinary", containerd(dump)), ("evil", evil_files())):
        archive = folder / f"{name}.tar"
        archive.write_bytes(tar_of(files))
        with open_checkpoint(archive) as opened:
            pages[name] = folder / f"{name}.html"
            pages[name].write_text(page_of(gather(opened, str(archive))))
    return pages


def opened(browser: Browser, path: Path, width: int, *, dark: bool = False) -> Page:
    page = browser.open(path, width=width, dark=dark)
    page.value(OPEN_ALL)
    return page


@pytest.mark.parametrize("name", ["ordinary", "evil"])
@pytest.mark.parametrize("width", [320, 390, 768, 1280, 2560])
def test_nothing_is_wider_than_the_screen(browser: Browser, written: dict[str, Path], width: int, name: str) -> None:
    page = opened(browser, written[name], width)
    assert page.value("window.innerWidth") == width
    assert page.value("document.documentElement.scrollWidth") <= width
    assert page.value(TOO_WIDE) == []


@pytest.mark.parametrize("name", ["ordinary", "evil"])
def test_nothing_is_asked_for_and_nothing_runs(browser: Browser, written: dict[str, Path], name: str) -> None:
    page = opened(browser, written[name], 1280)
    assert page.requests == [written[name].as_uri()]
    assert page.complaints == []
    assert page.value("document.querySelectorAll('script, img, iframe, object, embed, link').length") == 0
    assert page.value("document.querySelectorAll('section').length") == 8


def test_phone_shows_it_at_its_own_size(browser: Browser, written: dict[str, Path]) -> None:
    page = opened(browser, written["ordinary"], 390)
    assert page.value("visualViewport.scale") == 1
    assert page.value("parseFloat(getComputedStyle(document.body).fontSize)") >= 16


def test_deep_processes_keep_room_on_a_phone(browser: Browser, written: dict[str, Path]) -> None:
    page = opened(browser, written["ordinary"], 320)
    widths = page.value("[...document.querySelectorAll('.process')].map(each => each.clientWidth)")
    assert len(widths) == 14
    assert min(widths) > 160


@pytest.mark.parametrize("dark", [False, True])
def test_text_can_be_read_by_day_and_by_night(browser: Browser, written: dict[str, Path], dark: bool) -> None:
    page = opened(browser, written["ordinary"], 1280, dark=dark)
    contrasts = page.value(
        """
        (() => {
          const light = colour => {
            const parts = colour.match(/[0-9.]+/g).slice(0, 3).map(Number).map(each => each / 255)
              .map(each => each <= 0.03928 ? each / 12.92 : ((each + 0.055) / 1.055) ** 2.4);
            return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
          };
          const ground = each => {
            const found = getComputedStyle(each).backgroundColor;
            return found.endsWith(', 0)') && each.parentElement ? ground(each.parentElement) : found;
          };
          return [...document.querySelectorAll('h1, p, dt, dd, td, th, li, summary, code, .tag, .quiet')].map(each => {
            const two = [light(getComputedStyle(each).color), light(ground(each))].sort();
            return (Math.max(...two) + 0.05) / (Math.min(...two) + 0.05);
          });
        })()
        """
    )
    assert len(contrasts) > 100
    assert min(contrasts) >= 4.5  # WCAG 2.2, 1.4.3
    ground = page.value("getComputedStyle(document.body).backgroundColor")
    assert (ground == "rgb(21, 23, 26)") is dark


def test_memory_pictures_are_drawn(browser: Browser, written: dict[str, Path]) -> None:
    page = opened(browser, written["ordinary"], 390)
    heights = page.value("[...document.querySelectorAll('.process svg.map')].map(each => each.clientHeight)")
    assert len(heights) == 14
    assert min(heights) > 30
    fill = page.value("getComputedStyle(document.querySelector('rect.heap')).fill")
    assert fill == "rgb(245, 133, 24)"


@pytest.mark.parametrize("width", [390, 1280])
def test_sockets_say_who_talks_to_whom(browser: Browser, written: dict[str, Path], width: int) -> None:
    page = opened(browser, written["ordinary"], width)
    rows = page.value(
        "[...document.querySelectorAll('#sockets tbody tr')]"
        ".map(row => [...row.cells].filter(each => each.offsetWidth).map(each => each.innerText))"
    )
    processes = ["1"] if width > 600 else []
    assert ["tcp", "listening", "0.0.0.0:8080", "", *processes] in rows
    assert ["tcp", "established", "10.0.0.5:8080", "10.0.9.77:41222", *processes] in rows
