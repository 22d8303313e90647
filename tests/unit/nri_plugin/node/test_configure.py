"""Golden files of every configuration version, refusals, and the way back."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from nri_plugin.cli import app
from nri_plugin.node import changes, configure
from nri_plugin.node.changes import ConfigureRefused, Record
from nri_plugin.node.configure import Place, texts_in, wanted
from nri_plugin.node.containerd import Containerd
from nri_plugin.node.crio import Crio
from nri_plugin.node.processes import option
from shared.errors import CommandFailed

WRAPPER = "/usr/lib/nri-restore/restore-runc"
BEGIN, END = changes.BEGIN, changes.END
RUNTIME = 'plugins."io.containerd.cri.v1.runtime".containerd'

V1 = """\
# by hand
[plugins.cri.containerd.runtimes.runc]
  runtime_type = "io.containerd.runc.v2"
"""
V1_ADDED = f"""
{BEGIN}[plugins.nri]
disable = false

[plugins.cri.containerd.runtimes.nri-restore]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["nri-restore/*"]

[plugins.cri.containerd.runtimes.nri-restore.options]
BinaryName = "{WRAPPER}"
{END}"""
V2 = """\
version = 2
[plugins."io.containerd.nri.v1.nri"]
  disable = true   # the default of 1.7
  socket_path = "/var/run/nri/nri.sock"
[plugins."io.containerd.grpc.v1.cri".containerd]
  default_runtime_name = "mine"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.mine]
    runtime_type = "io.containerd.runc.v2"
    pod_annotations = ["other/*"]
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.mine.options]
      SystemdCgroup = true
      BinaryName = "/opt/runc"
      Root = "/run/mine"
"""
V2_ADDED = f"""
{BEGIN}[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nri-restore]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["other/*", "nri-restore/*"]

[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.nri-restore.options]
SystemdCgroup = true
BinaryName = "{WRAPPER}"
Root = "/run/mine"
{END}"""
V3_ADDED = f"""{BEGIN}[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nri-restore]
runtime_type = "io.containerd.runc.v2"
pod_annotations = ["nri-restore/*"]

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nri-restore.options]
SystemdCgroup = true
BinaryName = "{WRAPPER}"
{END}"""
RUNC_V3 = '[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]\nSystemdCgroup = true\n'


class Tree:
    def __init__(self, root: Path) -> None:
        self.root = root
        self.place = Place(WRAPPER, root / "record.json", root / "restore-runc.conf", root / "nri.toml")

    def file(self, name: str, text: str) -> Path:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return path

    def contents(self) -> dict[str, str]:
        return {str(each.relative_to(self.root)): each.read_text() for each in self.root.rglob("*") if each.is_file()}

    def configure(
        self, runtime: Containerd | Crio, wraps: str | None = None, *, default: bool = False
    ) -> dict[Path, str | None]:
        record = Record.load(self.place.record)
        files = wanted(self.place, record, runtime, wraps, default=default)
        changes.apply(record, files)
        return files

    def unconfigure(self) -> None:
        record = Record.load(self.place.record)
        for path, text in changes.revert(record).items():
            changes.write(path, text)
        changes.forget(record)

    def containerd(self, major: int, minor: int, template: Path | None = None) -> Containerd:
        return Containerd(self.root / "config.toml", (major, minor), template)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path)


@pytest.mark.parametrize(
    ("version", "before", "after", "binary"),
    [
        ((1, 7), V1, V1 + V1_ADDED, "runc"),
        ((1, 7), V2, V2.replace("disable = true ", "disable = false ") + V2_ADDED, "/opt/runc"),
        ((2, 0), V2, V2.replace("disable = true ", "disable = false ") + V2_ADDED, "/opt/runc"),
        ((2, 0), f"version = 3\n{RUNC_V3}", f"version = 3\n{RUNC_V3}\n{V3_ADDED}", "runc"),
        ((2, 1), f"version = 3\n{RUNC_V3}", f"version = 3\n{RUNC_V3}\n{V3_ADDED}", "runc"),
        ((2, 2), f"version = 3\n{RUNC_V3}", f"version = 3\n{RUNC_V3}\n{V3_ADDED}", "runc"),
        ((2, 3), f"version = 4\n{RUNC_V3}", f"version = 4\n{RUNC_V3}\n{V3_ADDED}", "runc"),
        ((2, 4), f"version = 4\n{RUNC_V3}", f"version = 4\n{RUNC_V3}\n{V3_ADDED}", "runc"),
    ],
)
def test_main_file_of_each_version(tree: Tree, version: tuple[int, int], before: str, after: str, binary: str) -> None:
    main = tree.file("config.toml", before)
    main.chmod(0o640)
    original = tree.contents()
    runtime = tree.containerd(*version)
    tree.configure(runtime)
    assert main.read_text() == after
    assert main.stat().st_mode & 0o777 == 0o640
    assert f"runtime={binary}\n" in tree.place.wrapper_config.read_text()
    tomllib.loads(after)

    again = tree.contents()
    assert changes.diff(tree.configure(runtime)) == "", "a second time changes nothing"
    assert tree.contents() == again
    tree.unconfigure()
    assert tree.contents() == original


@pytest.mark.parametrize(("version", "number"), [((2, 0), 3), ((2, 1), 3), ((2, 2), 3), ((2, 3), 4), ((2, 4), 4)])
def test_drop_in_where_the_main_file_imports_a_folder(tree: Tree, version: tuple[int, int], number: int) -> None:
    main = tree.file("config.toml", f"version = {number}\nimports = ['conf.d/*.toml']\n{RUNC_V3}")
    before = tree.contents()
    tree.configure(tree.containerd(*version))
    assert main.read_text() == before["config.toml"]
    assert (tree.root / "conf.d/nri-restore.toml").read_text() == f"version = {number}\n\n{V3_ADDED}"
    assert changes.diff(tree.configure(tree.containerd(*version))) == ""
    tree.unconfigure()
    assert tree.contents() == before
    assert not (tree.root / "conf.d").exists(), "nor does the folder stay that was made for it"


def test_nri_that_is_off_is_turned_on_where_it_is_said(tree: Tree) -> None:
    main = tree.file(
        "config.toml", 'version = 3\nimports = ["c/*.toml"]\n[plugins."io.containerd.nri.v1.nri"]\ndisable = true\n'
    )
    before = tree.contents()
    tree.configure(tree.containerd(2, 1))
    assert "disable = false" in main.read_text()
    tree.unconfigure()
    assert tree.contents() == before


def test_containerd_17_edits_the_import_that_holds_the_section(tree: Tree) -> None:
    """It takes a plugin's section from the last file that has it, and nothing of it from the others."""
    main = tree.file("config.toml", 'version = 2\nimports = ["more.toml"]\n')
    more = tree.file("more.toml", V2)
    tree.configure(tree.containerd(1, 7))
    assert main.read_text() == 'version = 2\nimports = ["more.toml"]\n'
    assert more.read_text().endswith(V2_ADDED)


@pytest.mark.parametrize(("version", "number"), [((1, 7), 2), ((2, 0), 3), ((2, 3), 4)])
def test_without_a_file_one_is_made_and_removed(tree: Tree, version: tuple[int, int], number: int) -> None:
    tree.configure(tree.containerd(*version))
    document = tomllib.loads((tree.root / "config.toml").read_text())
    assert document["version"] == number
    assert ("io.containerd.nri.v1.nri" in document["plugins"]) == (version < (2, 0))
    tree.unconfigure()
    assert tree.contents() == {}


RUNC_V2 = '[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]\nSystemdCgroup = true\n'
NRI_ON = '[plugins."io.containerd.nri.v1.nri"]\ndisable = false\n\n'
V3_BLOCK = V3_ADDED.removeprefix(BEGIN)
V2_BLOCK = V3_BLOCK.replace("io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri")


@pytest.mark.parametrize(
    ("version", "name", "generated", "added"),
    [
        ((1, 7), "config.toml.tmpl", f"version = 2\n{RUNC_V2}", f"{BEGIN}{NRI_ON}{V2_BLOCK}"),
        ((2, 0), "config-v3.toml.tmpl", f"version = 3\n{RUNC_V3}", V3_ADDED),
        ((2, 1), "config-v3.toml.tmpl", f"version = 3\n{RUNC_V3}", V3_ADDED),
        ((2, 2), "config-v3.toml.tmpl", f"version = 3\n{RUNC_V3}", V3_ADDED),
    ],
)
def test_template_of_k3s_and_rke2_is_made_beside_the_generated_file(
    tree: Tree, version: tuple[int, int], name: str, generated: str, added: str
) -> None:
    tree.file("config.toml", generated)
    before = tree.contents()
    template = tree.root / name
    tree.configure(tree.containerd(*version, template))
    assert template.read_text() == f'{{{{ template "base" . }}}}\n\n{added}'
    tree.unconfigure()
    assert tree.contents() == before


def test_crio_drop_in_copies_the_default_runtime(tree: Tree) -> None:
    tree.file("crio.conf", '[crio.runtime]\ndefault_runtime = "runc"\n')
    tree.file(
        "crio.conf.d/10.conf",
        '[crio.runtime.runtimes.runc]\nruntime_path = "/opt/runc"\nmonitor_path = "/usr/bin/conmon"\n',
    )
    before = tree.contents()
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "crio.conf.d", (1, 34)))
    assert (
        (tree.root / "crio.conf.d/99-nri-restore.conf").read_text()
        == f"""\
{BEGIN}[crio.nri]
enable_nri = true

[crio.runtime.runtimes.nri-restore]
runtime_path = "{WRAPPER}"
monitor_path = "/usr/bin/conmon"
runtime_type = "oci"
runtime_root = "/run/runc"
allowed_annotations = ["org.criu.config"]
{END}"""
    )
    assert "runtime=/opt/runc\n" in tree.place.wrapper_config.read_text()
    tree.unconfigure()
    assert tree.contents() == before


CRIO_PACKAGE = """\
[crio.image]
signature_policy = "/etc/crio/policy.json"

[crio.runtime]
default_runtime = "crun"

[crio.runtime.runtimes.crun]
runtime_path = "/usr/libexec/crio/crun"
runtime_root = "/run/crun"
monitor_path = "/usr/libexec/crio/conmon"
allowed_annotations = [
    "io.containers.trace-syscall",
]
platform_runtime_paths = { "linux/arm64" = "/opt/other" }
"""
"""Like the drop-in of CRI-O's own packages; the last line is an administrator's."""


def test_crio_drop_in_allows_what_a_restore_needs_and_no_other_program(tree: Tree) -> None:
    tree.file("d/10-crio.conf", CRIO_PACKAGE)
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 35), ()))
    assert tomllib.loads(tree.place.daemon_config.read_text()) == {"runtime": {"name": "cri-o"}}
    written = (tree.root / "d/99-nri-restore.conf").read_text()
    assert (
        written
        == f"""\
{BEGIN}[crio.nri]
enable_nri = true

[crio.runtime.runtimes.nri-restore]
runtime_path = "{WRAPPER}"
runtime_root = "/run/crun"
monitor_path = "/usr/libexec/crio/conmon"
allowed_annotations = ["io.containers.trace-syscall", "org.criu.config"]
runtime_type = "oci"
{END}"""
    )
    assert "runtime=/usr/libexec/crio/crun\n" in tree.place.wrapper_config.read_text()


@pytest.mark.parametrize("own", [True, False])
def test_daemon_looks_for_images_where_crio_keeps_them(tree: Tree, own: bool) -> None:
    shared = tree.file(
        "storage.conf", '[storage]\ndriver = "overlay"\ngraphroot = "/data/images"\nrunroot = "/run/x"\n'
    )
    if own:
        tree.file("crio.conf", '[crio]\nroot = "/crio/images"\nstorage_driver = "overlay"\n')
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 35), (tree.root / "none", shared)))
    storage = "/crio/images" if own else "/data/images"
    assert tomllib.loads(tree.place.daemon_config.read_text()) == {
        "runtime": {"name": "cri-o", "storage": storage, "storage_run": "/run/x"}
    }


def test_other_storage_driver_than_overlay_is_refused(tree: Tree) -> None:
    tree.file("crio.conf", '[crio]\nstorage_driver = "vfs"\n')
    with pytest.raises(ConfigureRefused, match="only overlay is read"):
        tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 35), ()))


def test_daemon_that_was_told_otherwise_is_not_overruled(tree: Tree) -> None:
    tree.file("nri.toml", '[runtime]\nhandler = "mine"\n')
    with pytest.raises(ConfigureRefused, match='it must say name = "cri-o"'):
        tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 35), ()))
    tree.file("nri.toml", '[runtime]\nname = "cri-o"\nhandler = "mine"\n')
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 35), ()))
    assert "BEGIN" not in tree.place.daemon_config.read_text()


def test_crio_that_lets_no_plugin_connect_is_told_to(tree: Tree) -> None:
    tree.file("crio.conf", "[crio.nri]\nnri_disable_connections = true\nenable_nri = false\n")
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 35), ()))
    written = tomllib.loads((tree.root / "d/99-nri-restore.conf").read_text())
    assert written["crio"]["nri"] == {"enable_nri": True, "nri_disable_connections": False}


def test_crio_before_the_filter_would_not_start_with_the_annotation(tree: Tree) -> None:
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 29)))
    assert "allowed_annotations" not in (tree.root / "d/99-nri-restore.conf").read_text()


def test_crio_runtime_that_is_only_another_name_for_the_default_is_refused(tree: Tree) -> None:
    tree.file("crio.conf", "[crio.runtime.runtimes.other]\ninherit_default_runtime = true\n")
    with pytest.raises(ConfigureRefused, match="is the default one"):
        tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 31)), wraps="other")


def test_crio_wraps_crun_where_that_is_its_default(tree: Tree) -> None:
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 31)))
    assert "runtime=crun\n" in tree.place.wrapper_config.read_text()
    tree.unconfigure()
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 30)))
    assert "runtime=runc\n" in tree.place.wrapper_config.read_text()


def test_other_socket_and_snapshotter_reach_the_daemon(tree: Tree) -> None:
    tree.file(
        "config.toml",
        'version = 3\ngrpc.address = "/run/k3s/c.sock"\nplugins."io.containerd.cri.v1.images".snapshotter = "zfs"\n',
    )
    tree.configure(tree.containerd(2, 1))
    assert tomllib.loads(tree.place.daemon_config.read_text()) == {
        "runtime": {"socket": "/run/k3s/c.sock", "snapshotter": "zfs"}
    }


def test_what_was_edited_since_stays_and_only_our_lines_go(tree: Tree) -> None:
    main = tree.file("config.toml", f"version = 3\n{RUNC_V3}")
    tree.configure(tree.containerd(2, 1))
    main.write_text(main.read_text().replace("version = 3\n", "version = 3\nroot = '/data'\n"))
    assert changes.diff(tree.configure(tree.containerd(2, 1))) == "", "and does not confuse a second configure"
    tree.unconfigure()
    assert main.read_text() == f"version = 3\nroot = '/data'\n{RUNC_V3}\n"


def test_files_given_are_put_beside_the_configuration_and_taken_back(tree: Tree) -> None:
    tree.file("nri.toml", "# the administrator's\n")
    tree.file("config.toml", 'version = 3\ngrpc.address = "/run/k3s/c.sock"\n')
    original = tree.contents()
    given = tree.file("map/..data/nri.toml", "[cache]\nunused = 1\n").parent
    (given.parent / "nri.toml").symlink_to("..data/nri.toml")
    (given.parent / "signer.pub").write_text("a key\n")
    record = Record.load(tree.place.record)
    files = texts_in(given.parent)
    assert set(files) == {"nri.toml", "signer.pub"}
    changes.apply(record, wanted(tree.place, record, tree.containerd(2, 1), None, files))
    assert tomllib.loads(tree.place.daemon_config.read_text()) == {
        "cache": {"unused": 1},
        "runtime": {"socket": "/run/k3s/c.sock"},
    }
    assert (tree.root / "signer.pub").read_text() == "a key\n"
    shutil.rmtree(given.parent)
    tree.configure(tree.containerd(2, 1))
    assert not (tree.root / "signer.pub").exists(), "a file that is not given any more goes"
    assert "# the administrator's\n" in tree.place.daemon_config.read_text()
    tree.unconfigure()
    assert tree.contents() == original


def command(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """The command on ``tree``: what it prints."""
    runtime = tree.containerd(2, 1)
    monkeypatch.setattr(configure, "Place", lambda wrapper: tree.place)
    monkeypatch.setattr(configure, "find", lambda *_: runtime)
    monkeypatch.setattr(configure, "RECORD", tree.place.record)
    monkeypatch.setattr(configure, "DAEMON_CONFIG", tree.place.daemon_config)
    monkeypatch.setattr(configure, "PENDING", tree.root / "pending")
    monkeypatch.setattr(configure, "restart", lambda: "containerd")
    return lambda *words: CliRunner().invoke(app, ["node", *words], catch_exceptions=False).stdout


@pytest.fixture
def etc(tree: Tree) -> Tree:
    """Our own folder is not the runtime's."""
    tree.place = Place(WRAPPER, tree.root / "r/record", tree.root / "own/runc.conf", tree.root / "own/config.toml")
    return tree


def test_runtime_is_restarted_only_when_its_own_files_changed(etc: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    node = command(etc, monkeypatch)
    etc.file("config.toml", f"version = 3\n{RUNC_V3}")
    etc.file("given/config.toml", "# one\n")
    words = ("configure", "--restart", "--etc", str(etc.root / "given"))
    assert "restarted containerd" in node(*words)
    assert node(*words) == "nothing to change\n"
    etc.file("given/config.toml", "# two\n")
    assert node(*words) == f"changed {etc.root}/own/config.toml\n"
    assert "restarted containerd" in node("unconfigure", "--restart")


def test_restart_that_failed_or_was_not_asked_for_is_made_up_for(etc: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    node = command(etc, monkeypatch)
    etc.file("config.toml", f"version = 3\n{RUNC_V3}")
    assert "restart the container runtime" in node("configure")
    monkeypatch.setattr(configure, "restart", lambda: configure.run(["false"], timeout_s=9))
    with pytest.raises(CommandFailed):
        node("configure", "--restart")
    monkeypatch.setattr(configure, "restart", lambda: "containerd")
    assert node("configure", "--restart") == "nothing to change\nrestarted containerd\n"
    assert node("configure", "--restart") == "nothing to change\n"


REFUSED = {
    "ConfigUnreadable": "version = [\n",
    "ConfigVersionUnknown": "version = 9\n",
    "PluginDisabled": 'version = 3\ndisabled_plugins = ["cri"]\n',
    "RuntimeMissing": f'version = 3\n[{RUNTIME}]\ndefault_runtime_name = "kata"\n',
    "RuntimeUnsupported": f'version = 3\n[{RUNTIME}.runtimes.runc]\nruntime_type = "io.containerd.kata.v2"\n',
    "HandlerPresent": 'version = 3\n[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.nri-restore]\n',
    "ImportMissing": 'version = 3\nimports = ["nowhere.toml"]\n',
    "ConfigOutdated": f'version = 3\n[{RUNTIME}.default_runtime]\nruntime_type = "x"\n',
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_is_not_understood_is_refused_and_nothing_written(tree: Tree, reason: str) -> None:
    tree.file("config.toml", REFUSED[reason])
    before = tree.contents()
    with pytest.raises(ConfigureRefused) as refusal:
        tree.configure(tree.containerd(2, 1))
    assert refusal.value.reason == reason
    assert tree.contents() == before


def test_imports_of_another_version_are_refused(tree: Tree) -> None:
    tree.file("config.toml", 'version = 3\nimports = ["old.toml"]\n')
    tree.file("old.toml", V2)
    with pytest.raises(ConfigureRefused, match="differ in version"):
        tree.configure(tree.containerd(2, 1))


def test_damaged_record_is_refused(tree: Tree) -> None:
    tree.place.record.write_text("{}")
    with pytest.raises(ConfigureRefused, match="is damaged"):
        tree.unconfigure()


V2_DEFAULT = V2.replace(
    'default_runtime_name = "mine"', 'default_runtime_name = "nri-restore" # nri-restore: before: "mine"'
)
V3_DEFAULT = f"""[{RUNTIME}]
default_runtime_name = "nri-restore"

"""
UNSAID_ADDED = 'default_runtime_name = "nri-restore" # nri-restore: before:\n'
UNSAID = f'version = 3\n[{RUNTIME}]\nsnapshotter = "overlayfs"\n'


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ((1, 7), V2, V2_DEFAULT.replace("disable = true ", "disable = false ") + V2_ADDED),
        ((2, 1), f"version = 3\n{RUNC_V3}", f"version = 3\n{RUNC_V3}\n{V3_ADDED.replace(BEGIN, BEGIN + V3_DEFAULT)}"),
        (
            (2, 1),
            UNSAID,
            f"{UNSAID}{UNSAID_ADDED}\n{V3_ADDED.replace('SystemdCgroup = true' + chr(10), '')}",
        ),
    ],
    ids=["said", "table not there", "table there"],
)
def test_handler_becomes_the_default_and_is_taken_back(
    tree: Tree, version: tuple[int, int], before: str, after: str
) -> None:
    main = tree.file("config.toml", before)
    original, runtime = tree.contents(), tree.containerd(*version)
    tree.configure(runtime, default=True)
    assert main.read_text() == after
    assert "default=true\n" in tree.place.wrapper_config.read_text()
    assert tomllib.loads(tree.place.daemon_config.read_text()) == {"handler": {"default": True}}
    assert changes.diff(tree.configure(runtime, default=True)) == "", "a second time changes nothing"

    tree.configure(runtime)
    assert main.read_text() != after
    assert "default" not in tree.place.wrapper_config.read_text()
    tree.configure(runtime, default=True)
    tree.unconfigure()
    assert tree.contents() == original


@pytest.mark.parametrize(("version", "before"), [((1, 7), V2), ((2, 1), f"version = 3\n{RUNC_V3}"), ((2, 1), UNSAID)])
def test_default_goes_from_a_file_that_was_edited_since(tree: Tree, version: tuple[int, int], before: str) -> None:
    main = tree.file("config.toml", before)
    tree.configure(tree.containerd(*version), default=True)
    main.write_text(main.read_text() + "# edited\n")
    tree.unconfigure()
    said = {**tomllib.loads(before)}
    now = tomllib.loads(main.read_text())
    for each in (said, now):
        each["plugins"].pop("io.containerd.nri.v1.nri", None)  # a switched-on NRI stays on
    assert now == said


def test_default_of_a_drop_in_read_later_is_refused(tree: Tree) -> None:
    tree.file("config.toml", f"version = 3\nimports = ['d/*.toml']\n{RUNC_V3}")
    tree.file("d/zz.toml", f'version = 3\n[{RUNTIME}]\ndefault_runtime_name = "runc"\n')
    before = tree.contents()
    with pytest.raises(ConfigureRefused, match="would not be in force"):
        tree.configure(tree.containerd(2, 1), default=True)
    tree.file("crio.conf.d/99-z.conf", '[crio.runtime]\ndefault_runtime = "crun"\n')
    with pytest.raises(ConfigureRefused, match=r"99-z\.conf, which CRI-O reads last"):
        tree.configure(Crio(tree.root / "crio.conf", tree.root / "crio.conf.d"), default=True)
    (tree.root / "crio.conf.d/99-z.conf").unlink()
    assert tree.contents() == before


def test_default_in_a_drop_in_wins_over_the_main_file(tree: Tree) -> None:
    tree.file(
        "config.toml", f"version = 3\nimports = ['d/*.toml']\n[{RUNTIME}]\ndefault_runtime_name = 'runc'\n{RUNC_V3}"
    )
    (tree.root / "d").mkdir()
    tree.configure(tree.containerd(2, 1), default=True)
    written = tree.root / "d/nri-restore.toml"
    assert written.read_text() == f"version = 3\n\n{V3_ADDED.replace(BEGIN, BEGIN + V3_DEFAULT)}"


def test_default_of_a_generated_configuration_is_refused(tree: Tree) -> None:
    tree.file("config.toml", f"version = 2\n{RUNC_V3.replace('cri.v1.runtime', 'grpc.v1.cri')}")
    with pytest.raises(ConfigureRefused) as refusal:
        tree.configure(tree.containerd(1, 7, tree.root / "config.toml.tmpl"), default=True)
    assert refusal.value.reason == "DefaultRuntimeFixed"


def test_crio_drop_in_makes_the_handler_the_default(tree: Tree) -> None:
    tree.configure(Crio(tree.root / "crio.conf", tree.root / "d", (1, 29)), default=True)
    assert (
        (tree.root / "d/99-nri-restore.conf").read_text()
        == f"""\
{BEGIN}[crio.nri]
enable_nri = true

[crio.runtime]
default_runtime = "nri-restore"

[crio.runtime.runtimes.nri-restore]
runtime_path = "{WRAPPER}"
runtime_type = "oci"
runtime_root = "/run/runc"
{END}"""
    )


def test_default_that_the_administrator_denies_the_daemon_is_refused(tree: Tree) -> None:
    tree.file("config.toml", "version = 3\n")
    tree.file("nri.toml", "[handler]\ndefault = false\n")
    with pytest.raises(ConfigureRefused, match=r"says handler\.default = false"):
        tree.configure(tree.containerd(2, 1), default=True)


def test_option_of_a_command_line() -> None:
    assert option(["containerd", "-c", "/a"], "--config", "-c") == "/a"
    assert option(["containerd", "--config=/b"], "--config", "-c") == "/b"
    assert option(["containerd"], "--config", "-c") is None
