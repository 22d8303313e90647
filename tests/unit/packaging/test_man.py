"""The manual pages: made from the commands, sound roff, and in the packages."""

from __future__ import annotations

import gzip
import subprocess
from pathlib import Path

import pytest

from tools import package
from tools.docs import commands
from tools.man import SECTIONS, pages


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return {name: text for program in SECTIONS for name, text in pages(program, "does what it does", "1.2.3")}


def test_each_verb_of_kubectls_has_a_page_and_the_daemon_one(made: dict[str, str]) -> None:
    verbs = {words.replace(" ", "-") for words, _ in commands() if words.startswith("kubectl ")}
    assert set(made) == {f"{verb}.1" for verb in verbs} | {"kubectl-restore.1", "nri-restore.8"}


def test_pages_are_sound(made: dict[str, str], tmp_path: Path) -> None:
    for name, text in made.items():
        (tmp_path / name).write_text(text)
    words = ["mandoc", "-T", "lint", "-W", "warning", *sorted(made)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def shown(text: str) -> str:
    """A page as a reader sees it, without line breaks."""
    words = ["mandoc", "-T", "ascii", "-O", "width=999"]
    plain = subprocess.run(words, input=text, capture_output=True, text=True, timeout=60, check=True).stdout
    while (at := plain.find("\b")) > 0:  # overstriking: bold and underlined
        plain = plain[: at - 1] + plain[at + 1 :]
    return " ".join(plain.split())


def test_page_shows_options_and_their_meaning(made: dict[str, str]) -> None:
    text = shown(made["kubectl-restore-inspect.1"])
    assert "kubectl restore inspect SOURCE [options]" in text
    assert "--html FILE Write one HTML page that needs nothing else; - is the output." in text
    assert "kubectl options explains them: --cluster, --user" in text
    assert "nri-restore node doctor Says whether this node can restore" in shown(made["nri-restore.8"])


@pytest.mark.parametrize("name", ["kubectl-restore", "nri-restore"])
def test_package_installs_its_pages(
    name: str, made: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(package, "vendor", lambda of, machine, place, pythons: place.mkdir(parents=True))
    (chosen,) = (each for each in package.PACKAGES if each.name == name)
    package.stage(chosen, "x86_64", tmp_path / "tree")
    installed = {file.name.removesuffix(".gz"): file for file in (tmp_path / "tree/usr/share/man").rglob("*.gz")}
    assert set(installed) == {page for page in made if page.startswith(name)}
    for page, file in installed.items():
        assert file.parent.name == f"man{page[-1]}"
        assert gzip.decompress(file.read_bytes()).decode().startswith(f".TH {name.upper()}".replace("-", "\\-"))
