"""A Python that runs wherever it is put, whatever the machine has: Debian's, with its own loader and libraries.

The program names its loader by an absolute path (ELF's PT_INTERP cannot be relative), so the place is chosen when the
tree is made. Source: ld.so(8).
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from shared.run import run

_UNUSED = (
    "__pycache__", "config-*", "curses", "dbm", "dist-packages", "ensurepip", "idlelib", "lib2to3", "pydoc_data",
    "sitecustomize.py", "sqlite3", "test", "tkinter", "turtle.py", "turtledemo", "unittest", "venv",
)  # fmt: skip
_UNUSED_MODULES = ("_sqlite3", "_curses", "readline", "_dbm", "_gdbm", "_tkinter", "_test", "_ctypes_test", "xx")


def version_of(root: Path) -> str:
    """``3.13``: what /usr/bin/python3 of a Debian root is."""
    return (root / "usr/bin/python3").readlink().name.removeprefix("python")


def copy_python(root: Path, tree: Path) -> None:
    """Puts the Python of the Debian ``root`` into ``tree``; ``add_libraries`` makes it run."""
    name = f"python{version_of(root)}"
    for folder in ("bin", "lib"):
        (tree / folder).mkdir(parents=True)
    shutil.copyfile(root / "usr/bin" / name, tree / "bin/python3")
    (tree / "bin/python3").chmod(0o755)
    shutil.copytree(
        root / "usr/lib" / name,
        tree / "lib" / name,
        symlinks=False,
        ignore_dangling_symlinks=True,
        ignore=shutil.ignore_patterns(*_UNUSED, *(f"{each}*.so" for each in _UNUSED_MODULES)),
    )


def add_libraries(root: Path, tree: Path, home: Path) -> None:
    """Puts every library of ``root`` that something in ``tree`` is linked with there, the loader included."""
    program, lib = tree / "bin/python3", tree / "lib"
    loader = Path(_patchelf("--print-interpreter", program).strip()).name
    _copy(root, loader, lib)
    (lib / loader).chmod(0o755)
    pending = [program, *(each for each in tree.rglob("*") if each.is_file() and ".so" in each.suffixes)]
    there = {each.name for each in pending}
    while pending:
        needed = set(_patchelf("--print-needed", *pending).split()) - there
        pending = [_copy(root, each, lib) for each in sorted(needed)]
        there |= needed
    # DT_RPATH, not DT_RUNPATH: the latter does not count for what extension modules need.
    _patchelf("--set-interpreter", home / "lib" / loader, "--force-rpath", "--set-rpath", home / "lib", program)


def add_licences(root: Path, tree: Path) -> None:
    """What Debian says about the packages that something in ``tree`` is of; none where ``root`` was stripped of it."""
    libraries = {each.name for each in (tree / "lib").iterdir() if each.is_file()}
    python = f"python{version_of(root)}"
    for listed in (root / "var/lib/dpkg/info").glob("*.list"):
        package = listed.stem.partition(":")[0]
        files = listed.read_text().splitlines()
        source = root / "usr/share/doc" / package / "copyright"
        if (python in package or any(Path(each).name in libraries for each in files)) and source.is_file():
            target = tree / "licences" / package
            target.parent.mkdir(exist_ok=True)
            shutil.copyfile(source, target)


def compile_all(tree: Path, home: Path) -> None:
    """Compiles every module as it will be found in ``home``, by the tree's own Python."""
    (loader,) = (tree / "lib").glob("ld-linux*")
    words = ["-B", "-s", "-P", "-S", "-m", "compileall", "-q", "--invalidation-mode", "unchecked-hash"]
    run(
        [loader, "--library-path", tree / "lib", tree / "bin/python3", *words, "-s", tree, "-p", home, tree / "lib",
         tree / "site-packages"],
        timeout_s=300,
        # The order of a set's members, which compiled modules hold, is the same each time.
        env={"PYTHONHOME": str(tree), "PYTHONHASHSEED": "0"},
    )  # fmt: skip


def _patchelf(*words: str | Path) -> str:
    return run([Path(sys.executable).parent / "patchelf", *words], timeout_s=60).stdout


def _copy(root: Path, name: str, folder: Path) -> Path:
    """Copies a library of a Debian root by its name; raises FileNotFoundError."""
    for each in ("usr/lib", "usr/lib64"):
        for found in (*(root / each).glob(f"*-linux-gnu/{name}"), root / each / name):
            if found.exists():
                return Path(shutil.copyfile(found, folder / name))
    raise FileNotFoundError(f"{root} has no library {name}")
