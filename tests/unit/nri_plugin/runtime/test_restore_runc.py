"""The OCI runtime of our handler: what it passes on, what it refuses, and how it restores."""

from __future__ import annotations

import fcntl
import json
import os
import re
import resource
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shared.judge.corrections import RLIMITS

LIMITS = [kind.removeprefix("RLIMIT_").lower() for kind in RLIMITS]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, f"waited too long for {what}"
        time.sleep(0.01)


def state_of(pid: int) -> str:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


def ended(pid: int) -> bool:
    try:
        return state_of(pid) in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


# ---- everything else is the real runtime's ----


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["--version"],
        ["features"],
        ["list", "-q"],
        ["--root", "/run/x y", "--log=/a log", "--log-format", "json", "state", "c" * 64],
        ["--root=/run/x", "delete", "--force", "c" * 64],
        ["kill", "--all", "c" * 64, "9"],
        ["exec", "--process", "/tmp/a file", "--detach", "--pid-file", "", "c" * 64],
        ["exec", "c" * 64, "sh", "-c", "echo 'two  blanks' \"quotes\" \\ $HOME\nnew line", ""],
        ["update", "--resources", "-", "c" * 64],
        ["events", "--stats", "c" * 64],
        ["ps", "--format", "json", "c" * 64],
        ["pause", "c" * 64],
        ["checkpoint", "--image-path", "/create", "c" * 64],
        ["--systemd-cgroup", "--debug", "run", "c" * 64],
        ["create"],
        ["start", "c" * 64],
    ],
    ids=" ".join,
)
def test_other_calls_reach_the_runtime_as_they_came(wrapper: Any, words: list[str]) -> None:
    assert wrapper.run(*words).returncode == 0
    assert wrapper.calls == [words]


def test_a_call_named_like_another_container_does_not_meet_its_plan(wrapper: Any) -> None:
    wrapper.prepare("ok", restored="1")
    assert wrapper.run("start", "other").returncode == 0
    assert wrapper.calls == [["start", "other"]]


@pytest.mark.parametrize(
    "annotation",
    [
        '"io.kubernetes.cri.container-type":"sandbox"',
        # CRI-O writes it indented (runtime-tools generate.Save).
        '\n\t\t"io.kubernetes.cri-o.ContainerType": "sandbox",\n\t\t"io.kubernetes.cri-o.HostNetwork": "false"\n\t',
    ],
)
def test_pod_sandbox_needs_no_plan(wrapper: Any, annotation: str) -> None:
    (wrapper.bundle / "config.json").write_text('{"annotations":{' + annotation + "}}")
    assert wrapper.create().returncode == 0
    assert wrapper.calls == [list(wrapper.create_words())]


@pytest.mark.parametrize(
    "annotations",
    [
        # On CRI-O a pod's own annotations are in its containers' config.json too.
        {"io.kubernetes.cri.container-type": "sandbox", "io.kubernetes.cri-o.ContainerType": "container"},
        {"io.kubernetes.cri-o.ContainerType": "container", "mine": '"io.kubernetes.cri-o.ContainerType": "sandbox"'},
        {"mine": "sandbox"},
    ],
)
def test_container_that_calls_itself_a_sandbox_is_refused(wrapper: Any, annotations: dict[str, str]) -> None:
    (wrapper.bundle / "config.json").write_text(json.dumps({"annotations": annotations}, indent="\t"))
    assert wrapper.create().returncode == 1
    assert wrapper.calls == []


def test_no_sandbox_is_restored(wrapper: Any) -> None:
    wrapper.config("sandbox")
    assert wrapper.run("restore", "--bundle", str(wrapper.bundle), "c" * 64).returncode == 1
    assert wrapper.calls == []


def test_container_without_plan_is_refused(wrapper: Any) -> None:
    done = wrapper.create()
    assert done.returncode == 1
    assert wrapper.calls == []
    (said,) = wrapper.logged
    assert said.startswith("restore: NotPrepared: the nri-restore daemon was not asked about this container; ")
    assert done.stderr == ""


# ---- the runtime's default: what nobody was asked about runs, unless it is a checkpoint ----


def test_ordinary_container_runs_unasked_where_the_handler_is_the_default(wrapper: Any) -> None:
    wrapper.configure(default="true")
    assert wrapper.create().returncode == 0
    assert wrapper.calls == [list(wrapper.create_words())]


@pytest.mark.parametrize("names", [[".nri-restore"], ["config.dump", "spec.dump"]], ids=str)
@pytest.mark.parametrize("how", ["directory", "dangling link"])
def test_checkpoint_image_does_not_start_unasked(wrapper: Any, names: list[str], how: str) -> None:
    wrapper.configure(default="true")
    for name in names:
        path = wrapper.bundle / "rootfs" / name
        path.symlink_to("/nowhere") if how == "dangling link" else path.mkdir()
    assert wrapper.create().returncode == 1
    assert wrapper.calls == []
    assert "NotPrepared" in wrapper.logged[0]


def test_image_with_one_file_called_as_a_checkpoints_is_ordinary(wrapper: Any) -> None:
    wrapper.configure(default="true")
    (wrapper.bundle / "rootfs/spec.dump").write_text("mine")
    assert wrapper.create().returncode == 0


@pytest.mark.parametrize("key", ["nri-restore/checkpoint", "nri-restore/checkpoint.web", "org.criu.config"])
@pytest.mark.parametrize("indent", [None, "\t"])
def test_annotated_container_does_not_start_unasked(wrapper: Any, key: str, indent: str | None) -> None:
    wrapper.configure(default="true")
    document = {"annotations": {"io.kubernetes.cri.container-type": "container", key: "registry/checkpoint:1"}}
    (wrapper.bundle / "config.json").write_text(json.dumps(document, indent=indent))
    assert wrapper.create().returncode == 1
    assert wrapper.calls == []


@pytest.mark.parametrize("indent", [None, "\t"])
def test_options_for_criu_that_are_ours_hold_no_container_up(wrapper: Any, indent: str | None) -> None:
    wrapper.configure(default="true")
    document = {"annotations": {"org.criu.config": f"{wrapper.plan}/criu.conf"}}
    (wrapper.bundle / "config.json").write_text(
        json.dumps(document, indent=indent, separators=(",", ": " if indent else ":"))
    )
    assert wrapper.create().returncode == 0


def test_container_whose_files_are_not_found_does_not_start_unasked(wrapper: Any) -> None:
    wrapper.configure(default="true")
    (wrapper.bundle / "rootfs").rmdir()
    assert wrapper.create().returncode == 1
    (wrapper.bundle / "config.json").unlink()
    (wrapper.bundle / "rootfs").mkdir()
    assert wrapper.create().returncode == 1
    assert wrapper.calls == []


@pytest.mark.parametrize("checkpoint", [False, True])
def test_root_file_system_outside_the_bundle_is_looked_at(wrapper: Any, checkpoint: bool) -> None:
    wrapper.configure(default="true")
    (wrapper.bundle / "rootfs").rmdir()
    root = wrapper.folder / "storage/merged"
    root.mkdir(parents=True)
    if checkpoint:
        (root / ".nri-restore").mkdir()
    document = {"root": {"path": str(root)}, "annotations": {"io.kubernetes.cri-o.ContainerType": "container"}}
    (wrapper.bundle / "config.json").write_text(json.dumps(document, indent="\t"))
    assert wrapper.create().returncode == int(checkpoint)


def test_runtimes_own_restore_is_refused_unasked_under_the_default_too(wrapper: Any) -> None:
    wrapper.configure(default="true")
    assert wrapper.run("restore", "--bundle", str(wrapper.bundle), "c" * 64).returncode == 1
    assert wrapper.calls == []


@pytest.mark.parametrize("default", ["", "true"])
@pytest.mark.parametrize("status", [None, "undecided Unavailable: the runtime does not answer"])
def test_lost_or_undecided_plan_holds_up_only_where_the_handler_was_asked_for(
    wrapper: Any, default: str, status: str | None
) -> None:
    wrapper.configure(default=default)
    wrapper.prepare(status)
    assert wrapper.create().returncode == int(not default)
    if not default:
        assert wrapper.logged[0].startswith(
            "restore: PreparationLost" if status is None else "restore: Unavailable: the"
        )
    else:
        assert wrapper.calls == [list(wrapper.create_words())]


def test_refused_plan_is_refused_under_the_default_too(wrapper: Any) -> None:
    wrapper.configure(default="true")
    wrapper.prepare("refused MountMissing: no")
    assert wrapper.create().returncode == 1
    assert wrapper.logged == ["restore: MountMissing: no"]


def test_preparation_that_takes_long_does_not_hold_up_what_is_ordinary(wrapper: Any) -> None:
    wrapper.configure(default="true")
    wrapper.prepare(None)
    with (wrapper.plan / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert wrapper.create().returncode == 0
        (wrapper.bundle / "rootfs/.nri-restore").mkdir()
        assert wrapper.create().returncode == 1
    assert "StillPreparing" in wrapper.logged[0]


def test_without_a_log_the_reason_goes_to_stderr(wrapper: Any) -> None:
    done = wrapper.run("create", "--bundle", str(wrapper.bundle), "c" * 64)
    assert done.returncode == 1
    assert done.stderr.startswith("restore: NotPrepared: ")


def test_text_log_goes_to_stderr_too(wrapper: Any) -> None:
    done = wrapper.run("--log", str(wrapper.log_file), "create", "--bundle", str(wrapper.bundle), "c" * 64)
    assert done.stderr.startswith("restore: NotPrepared: ")
    assert not wrapper.log_file.exists()


# ---- spellings ----


@pytest.mark.parametrize(
    "words",
    [
        # containerd's shim (go-runc)
        "--root ROOT --log LOG --log-format json --systemd-cgroup create --bundle BUNDLE --pid-file PID --no-pivot ID",
        "--root=ROOT --log=LOG --log-format=json --systemd-cgroup create --bundle=BUNDLE --pid-file=PID --no-pivot ID",
        "--root ROOT --log LOG --log-format json --systemd-cgroup create -b BUNDLE --pid-file PID --no-pivot ID",
        # conmon
        "--systemd-cgroup --root=ROOT --log-format=json --log=LOG create --no-pivot --bundle BUNDLE --pid-file PID ID",
    ],
)
def test_every_spelling_of_the_arguments(wrapper: Any, words: str) -> None:
    wrapper.prepare()
    values = {
        "ROOT": "/run/root",
        "LOG": str(wrapper.log_file),
        "BUNDLE": str(wrapper.bundle),
        "PID": f"{wrapper.bundle}/init.pid",
        "ID": "c" * 64,
    }
    spelt = []
    for word in words.split():
        key, equals, value = word.rpartition("=")
        spelt.append(f"{key}{equals}{values.get(value, value)}")
    assert wrapper.run(*spelt).returncode == 0
    (call,) = wrapper.calls
    assert call == [
        *("--root", "/run/root", "--log", f"{wrapper.plan}/work/runc.log", "--log-format", "json", "--systemd-cgroup"),
        *("restore", "--image-path", "/images of it", "--bundle", str(wrapper.bundle)),
        *("--pid-file", f"{wrapper.bundle}/init.pid", "--no-pivot", "--detach", "--no-subreaper", "c" * 64),
    ]
    assert (wrapper.plan / "restored").read_text() == "1"


def test_console_socket_is_passed_on(wrapper: Any) -> None:
    wrapper.prepare()
    assert wrapper.create("--console-socket", "/tmp/a socket").returncode == 0
    (call,) = wrapper.calls
    assert call[call.index("--console-socket") + 1] == "/tmp/a socket"


# ---- status ----


def test_plain_is_created_as_it_is(wrapper: Any) -> None:
    wrapper.prepare("plain")
    assert wrapper.create().returncode == 0
    assert wrapper.calls == [list(wrapper.create_words())]


# As conmon calls a runtime when CRI-O restores an archive image by itself.
CRIO_RESTORE = ("--root", "/run/root", "restore", "--image-path", "/crio/checkpoint", "--detach")


def test_what_the_runtime_restores_by_itself_does_not_pass_unchecked(wrapper: Any) -> None:
    wrapper.prepare("plain")
    done = wrapper.run(*CRIO_RESTORE, "--bundle", str(wrapper.bundle), "c" * 64)
    assert done.returncode == 1
    assert wrapper.calls == []
    assert done.stderr.startswith("restore: RestoredByRuntime: the runtime would restore this container by itself, ")


def test_the_runtimes_own_restore_of_what_was_checked_is_ours(wrapper: Any) -> None:
    wrapper.prepare("ok")
    words = (*CRIO_RESTORE, "--bundle", str(wrapper.bundle), "--pid-file", f"{wrapper.bundle}/init.pid", "c" * 64)
    wrapper.behaves(f"restored={os.getpid()}")
    assert wrapper.run(*words).returncode == 0
    (call,) = wrapper.calls
    assert "/crio/checkpoint" not in call
    assert call[call.index("--image-path") + 1] == "/images of it"


def test_no_failed_restore_becomes_one_of_the_runtimes_own(wrapper: Any) -> None:
    wrapper.prepare("ok", **{"start-on-failure": ""})
    wrapper.behaves("status=1")
    assert wrapper.run(*CRIO_RESTORE, "--bundle", str(wrapper.bundle), "c" * 64).returncode == 1
    assert [call[6] if len(call) > 6 else call[2] for call in wrapper.calls] == ["restore", "delete"]


@pytest.mark.parametrize("status", ["plain", "ok"])
def test_checkpoint_inside_a_layered_image_is_removed_first(wrapper: Any, status: str) -> None:
    inside = wrapper.bundle / "rootfs/.nri-restore/checkpoint"
    inside.mkdir(parents=True)
    wrapper.prepare(status, remove="")
    assert wrapper.create().returncode == 0
    assert list((wrapper.bundle / "rootfs").iterdir()) == []


def test_link_in_place_of_the_checkpoint_is_not_followed(wrapper: Any, tmp_path: Path) -> None:
    (tmp_path / "precious").mkdir()
    (tmp_path / "precious/file").touch()
    (wrapper.bundle / "rootfs/.nri-restore").symlink_to(tmp_path / "precious")
    wrapper.prepare("plain", remove="")
    assert wrapper.create().returncode == 0
    assert (tmp_path / "precious/file").exists()


def test_refusal_is_logged_as_one_valid_line_of_json(wrapper: Any) -> None:
    wrapper.prepare('refused MountMissing: "quoted" C:\\path\tand \x07 $HOME `x` %s é')
    assert wrapper.create().returncode == 1
    assert wrapper.calls == []
    assert wrapper.logged == ['restore: MountMissing: "quoted" C:\\path and  $HOME `x` %s é']


def test_unknown_status_is_a_refusal(wrapper: Any) -> None:
    wrapper.prepare("okay?")
    assert wrapper.create().returncode == 1
    assert wrapper.calls == []


# ---- waiting ----


class Held:
    """The plan's lock as the worker holds it."""

    def __init__(self, plan: Path) -> None:
        self.fd = os.open(plan / "lock", os.O_RDWR)
        fcntl.flock(self.fd, fcntl.LOCK_EX)

    def free(self) -> None:
        os.close(self.fd)


def waits(wrapper: Any) -> Any:
    """A call that has begun to wait for the lock."""
    process = wrapper.start(*wrapper.create_words())
    lock = f"{wrapper.plan}/lock"

    def waiting() -> bool:
        listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return any(line.startswith("flock") and lock in line for line in listed.splitlines())

    wait_for(waiting, "restore-runc to wait")
    return process


def test_waits_for_the_preparation(wrapper: Any) -> None:
    wrapper.configure(wait_s=20)
    wrapper.prepare(None)
    lock = Held(wrapper.plan)
    process = waits(wrapper)
    assert process.poll() is None
    (wrapper.plan / "status").write_text("plain\n")
    lock.free()
    assert process.wait(60) == 0
    assert wrapper.calls == [list(wrapper.create_words())]


def test_wait_is_limited(wrapper: Any) -> None:
    wrapper.prepare(None)
    lock = Held(wrapper.plan)
    assert wrapper.create().returncode == 1
    lock.free()
    (said,) = wrapper.logged
    assert said.startswith("restore: StillPreparing: the checkpoint is still being pulled or prepared after 1 s; ")


def test_lock_freed_by_the_death_of_its_holder(wrapper: Any) -> None:
    wrapper.configure(wait_s=20)
    wrapper.prepare(None)
    holder = subprocess.Popen(["flock", wrapper.plan / "lock", "cat"], stdin=subprocess.PIPE, start_new_session=True)
    wait_for(lambda: bool(Path(f"/proc/{holder.pid}/task/{holder.pid}/children").read_text()), "the lock to be held")
    process = waits(wrapper)
    os.killpg(holder.pid, signal.SIGKILL)
    holder.wait()
    assert process.wait(60) == 1
    assert wrapper.calls == []
    assert wrapper.logged[0].startswith("restore: PreparationLost: the nri-restore daemon ended while it prepared")


def test_container_removed_while_it_waits(wrapper: Any) -> None:
    wrapper.prepare(None)
    lock = Held(wrapper.plan)
    wrapper.configure(wait_s=20)
    process = waits(wrapper)
    for file in (*(wrapper.plan / "work").iterdir(), *(each for each in wrapper.plan.iterdir() if each.is_file())):
        file.unlink()
    (wrapper.plan / "work").rmdir()
    wrapper.plan.rmdir()
    lock.free()
    assert process.wait(60) == 1
    assert wrapper.logged == ["restore: Cancelled: the container was removed while its restore was being prepared"]


def test_stopped_pod_restores_nothing(wrapper: Any) -> None:
    wrapper.prepare("ok", cancelled="")
    assert wrapper.create().returncode == 1
    assert wrapper.calls == []
    assert wrapper.logged == ["restore: Cancelled: the pod was stopped before its container was restored"]


# ---- restoring ----


def test_root_directory_gets_its_mode_before_the_restore(wrapper: Any) -> None:
    rootfs = wrapper.bundle / "rootfs"
    rootfs.chmod(0o755)
    wrapper.prepare(**{"root-mode": "555\n"})
    wrapper.behaves(f'restored=1; ls -ld {rootfs} >"{wrapper.folder}/seen"')
    assert wrapper.create().returncode == 0
    assert (wrapper.folder / "seen").read_text().startswith("dr-xr-xr-x")


def test_log_of_the_checkpoint_comes_before_the_new_one(wrapper: Any, tmp_path: Path) -> None:
    log = tmp_path / "0.log"
    wrapper.prepare("ok", log="old lines\n", logpath=f"{log}\n")
    assert wrapper.create().returncode == 0
    assert log.read_text() == "old lines\n"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("Can't open file data/log on restore: No such file or directory", "OpenFileDiffers"),
        ("File data/log has bad size 7 (expect 3)", "OpenFileDiffers"),
        ("Can't open file data/log on restore: Permission denied", "CriuFailed"),
        ("Can't open file proc/1/task/9/stat on restore: No such file or directory", "CriuFailed"),
    ],
)
def test_failure_over_a_file_that_only_a_volume_can_lack_says_what_to_do(wrapper: Any, said: str, reason: str) -> None:
    wrapper.prepare()
    line = f"(00.02)      1: Error (criu/files-reg.c:2): {said}"
    wrapper.behaves(f"cat >{wrapper.plan}/work/restore.log <<'E'\n{line}\nE\nstatus=1")
    assert wrapper.create().returncode == 1
    assert wrapper.logged[0].startswith(f"restore: {reason}: ")
    assert f": {said} (full log: " in wrapper.logged[0]
    assert ("same volume" in wrapper.logged[0]) == (reason == "OpenFileDiffers")


def test_failure_is_undone_and_says_the_first_telling_error(wrapper: Any, tmp_path: Path) -> None:
    wrapper.prepare()
    wrapper.behaves(
        f"cat >{wrapper.plan}/work/restore.log <<'E'\n"
        "(00.01)      1: Error (criu/rlimit.c:1): Can't setup RLIMIT_NOFILE\n"
        '(00.02)      1: Error (criu/files-reg.c:2): File "root/held" has \\bad size\n'
        "(00.03) Error (criu/cr-restore.c:3): Restoring FAILED.\n"
        "E\nstatus=1"
    )
    assert wrapper.create().returncode == 1
    said = 'File "root/held" has \\bad size'
    kept = f"{tmp_path}/kept/restore.log"
    assert wrapper.logged == [
        f"restore: CriuFailed: CRIU cannot restore the container: {said} (full log: {kept})",
    ]
    assert said in Path(kept).read_text()
    assert wrapper.logged == [f"restore: {(wrapper.plan / 'why').read_text()}"]
    assert wrapper.calls[1:] == [["--root", "/run/root", "delete", "--force", "c" * 64]]
    assert (wrapper.plan / "failed").exists()
    assert not (wrapper.plan / "restored").exists()
    assert "iptables -w 5 -F CRIU" in wrapper.firewall


def test_failure_is_told_from_a_log_with_odd_bytes(wrapper: Any) -> None:
    wrapper.prepare()
    wrapper.behaves(
        f"printf 'a\\0b\\n(00.02) 1: Error (criu/x.c:2): no such thing\\n' >{wrapper.plan}/work/restore.log\nstatus=1"
    )
    assert wrapper.create().returncode == 1
    assert "CRIU cannot restore the container: no such thing (full log: " in wrapper.logged[0]


def test_failure_before_criu_tells_the_runtimes_last_error(wrapper: Any) -> None:
    wrapper.prepare()
    wrapper.behaves(
        f'printf \'%s\\n\' \'{{"level":"error","msg":"no such thing","time":"now"}}\' >{wrapper.plan}/work/runc.log\n'
        "status=1"
    )
    assert wrapper.create().returncode == 1
    assert "CRIU cannot restore the container: no such thing (full log: " in wrapper.logged[0]


def test_failure_without_any_word(wrapper: Any) -> None:
    wrapper.prepare()
    wrapper.behaves("status=1")
    assert wrapper.create().returncode == 1
    assert "CRIU cannot restore the container: it gave no reason (full log: " in wrapper.logged[0]


def test_kept_log_has_a_limit(wrapper: Any, tmp_path: Path) -> None:
    wrapper.configure(max_log_bytes=1000)
    wrapper.prepare()
    wrapper.behaves(f"head -c 100000 /dev/zero >{wrapper.plan}/work/restore.log\nstatus=1")
    wrapper.create()
    assert (tmp_path / "kept/restore.log").stat().st_size == 1000
    assert (tmp_path / "kept").stat().st_mode & 0o777 == 0o700


def test_restore_that_takes_too_long_is_ended(wrapper: Any, tmp_path: Path) -> None:
    wrapper.configure(restore_s=1)
    wrapper.prepare()
    wrapper.behaves(f"echo $$ >{tmp_path}/pid\nexec /bin/sleep 100")
    assert wrapper.create().returncode == 1
    assert wrapper.logged == ["restore: RestoreTimeout: CRIU did not finish within 1 s"]
    assert ended(int((tmp_path / "pid").read_text()))
    assert wrapper.calls[1][2:4] == ["delete", "--force"]


def test_killed_in_the_middle_it_is_undone_all_the_same(wrapper: Any, tmp_path: Path) -> None:
    wrapper.prepare()
    wrapper.behaves(f"echo $$ >{tmp_path}/pid\nexec /bin/sleep 100")
    process = wrapper.start(*wrapper.create_words())
    wait_for(lambda: (tmp_path / "pid").exists() and bool((tmp_path / "pid").read_text()), "the restore to begin")
    process.kill()
    process.wait()
    wait_for(lambda: (wrapper.plan / "failed").exists(), "the restore to be undone")
    assert ended(int((tmp_path / "pid").read_text()))
    assert wrapper.calls[1:] == [["--root", "/run/root", "delete", "--force", "c" * 64]]


def test_what_outlives_a_restore_leaves_a_good_one_alone(wrapper: Any) -> None:
    wrapper.prepare()
    assert wrapper.create().returncode == 0
    lock = f"{wrapper.plan}/restoring"

    def gone() -> bool:
        listed = subprocess.run(["ps", "-ww", "-eo", "args"], capture_output=True, text=True, check=True).stdout
        return lock not in listed and str(wrapper.plan) not in listed

    wait_for(gone, "the guard to end")
    assert len(wrapper.calls) == 1
    assert not (wrapper.plan / "failed").exists()


def test_pod_stopped_during_the_restore(wrapper: Any) -> None:
    wrapper.prepare()
    wrapper.behaves(f": >{wrapper.plan}/cancelled\nrestored=1")
    assert wrapper.create().returncode == 1
    assert wrapper.logged == ["restore: Cancelled: the pod was stopped while its container was restored"]
    assert wrapper.calls[1][2:4] == ["delete", "--force"]
    assert not (wrapper.plan / "restored").exists()


def test_failed_restore_becomes_a_start_where_the_pod_wants_that(wrapper: Any) -> None:
    wrapper.prepare("ok", **{"start-on-failure": ""})
    wrapper.behaves("status=1")
    # The fake runtime's `create` ends well.
    assert wrapper.create().returncode == 0
    assert [call[6] if len(call) > 6 else call[2] for call in wrapper.calls] == ["restore", "delete", "create"]
    assert wrapper.calls[2] == list(wrapper.create_words())
    assert (wrapper.plan / "why").read_text().startswith("CriuFailed: ")


def test_start_in_place_of_a_restore_shows_no_checkpoint(wrapper: Any) -> None:
    (wrapper.bundle / "rootfs/.nri-restore/checkpoint").mkdir(parents=True)
    wrapper.prepare("ok", **{"start-on-failure": "", "remove": ""})
    wrapper.behaves("status=1")
    assert wrapper.create().returncode == 0
    assert list((wrapper.bundle / "rootfs").iterdir()) == []


def test_root_that_is_not_in_the_bundle(wrapper: Any, tmp_path: Path) -> None:
    """CRI-O mounts it where its storage is."""
    (tmp_path / "merged/.nri-restore").mkdir(parents=True)
    wrapper.prepare("ok", remove="", rootfs=f"{tmp_path}/merged\n")
    assert wrapper.create().returncode == 0
    assert list((tmp_path / "merged").iterdir()) == []


def test_stopped_pod_is_not_started_in_place_of_a_restore(wrapper: Any) -> None:
    wrapper.prepare("ok", **{"start-on-failure": ""})
    wrapper.behaves(f": >{wrapper.plan}/cancelled\nstatus=1")
    assert wrapper.create().returncode == 1
    assert len(wrapper.calls) == 2


def test_descriptors_of_its_own_reach_no_runtime(wrapper: Any, tmp_path: Path) -> None:
    wrapper.prepare("ok", **{"start-on-failure": ""})
    wrapper.behaves(f"ls -l /proc/$$/fd >{tmp_path}/open\nstatus=1")
    assert wrapper.create().returncode == 0
    assert str(wrapper.plan) not in (tmp_path / "open").read_text()


# ---- starting ----


def stopped_tree() -> tuple[subprocess.Popen[str], list[int]]:
    """A stopped process, its child and its grandchild."""
    script = "sh -c 'sh -c \"kill -STOP \\$\\$; exec sleep 100\" & kill -STOP $$; wait' & kill -STOP $$; wait"
    top = subprocess.Popen(["sh", "-c", script], text=True, start_new_session=True)
    pids: list[int] = []

    def complete() -> bool:
        pids[:] = [top.pid]
        for pid in pids:
            pids.extend(int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())
        return len(pids) == 3 and all(state_of(pid) == "T" for pid in pids)

    wait_for(complete, "three stopped processes")
    return top, pids


def test_start_wakes_the_whole_tree(wrapper: Any) -> None:
    top, pids = stopped_tree()
    try:
        wrapper.prepare("ok", restored=str(top.pid), stopped="")
        assert wrapper.run("--root", "/run/root", "start", "c" * 64).returncode == 0
        assert [state_of(pid) for pid in pids] == ["S", "S", "S"] or "T" not in [state_of(pid) for pid in pids]
        assert wrapper.calls == []
    finally:
        os.killpg(top.pid, signal.SIGKILL)
        top.wait()


def test_start_leaves_alone_what_was_stopped_when_dumped(wrapper: Any) -> None:
    top, pids = stopped_tree()
    try:
        wrapper.prepare("ok", restored=str(top.pid), stopped=f"{pids[1]}\n99999999\n")
        assert wrapper.run("start", "c" * 64).returncode == 0
        assert state_of(pids[1]) == "T"
        assert "T" not in {state_of(pids[0]), state_of(pids[2])}
    finally:
        os.killpg(top.pid, signal.SIGKILL)
        top.wait()


def test_limits_are_lowered_in_the_whole_tree_before_it_wakes(wrapper: Any) -> None:
    top, pids = stopped_tree()
    try:
        wrapper.prepare("ok", stopped="", adjust="nofile 60:61\noom_score_adj 900\n")
        wrapper.behaves(f"restored={top.pid}")
        assert wrapper.create().returncode == 0, wrapper.logged
        for pid in pids:
            assert state_of(pid) == "T"
            assert re.search(r"Max open files +60 +61 ", Path(f"/proc/{pid}/limits").read_text())
            assert Path(f"/proc/{pid}/oom_score_adj").read_text() == "900\n"
        assert wrapper.run("start", "c" * 64).returncode == 0
        assert "T" not in {state_of(pid) for pid in pids}
    finally:
        os.killpg(top.pid, signal.SIGKILL)
        top.wait()


@pytest.mark.parametrize(
    ("dumped", "found"), [("20", "60 +70"), ("62", "60 +61"), ("unlimited", "60 +61"), ("61", "60 +70")]
)
def test_limits_that_a_container_inherits_are_no_more_than_our_own(wrapper: Any, dumped: str, found: str) -> None:
    """restore-runc has a limit of 61 itself here; where nothing in the dump is more, no process is looked at."""
    top, pids = stopped_tree()
    try:
        for pid in pids:
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (60, 70))
        highest = " ".join(f"{name}={dumped if name == 'nofile' else 0}" for name in LIMITS)
        wrapper.prepare("ok", stopped="", inherited=f"{highest}\n")
        wrapper.behaves(f"restored={top.pid}")
        wrapper.prefix = ["prlimit", "--nofile=61:61"]
        assert wrapper.create().returncode == 0, wrapper.logged
        for pid in pids:
            assert re.search(rf"Max open files +{found} ", Path(f"/proc/{pid}/limits").read_text())
    finally:
        os.killpg(top.pid, signal.SIGKILL)
        top.wait()


def test_restore_that_the_runtime_began_by_itself_is_taken_over_and_woken(wrapper: Any) -> None:
    top, pids = stopped_tree()
    try:
        wrapper.prepare("ok", stopped="")
        wrapper.behaves(f"restored={top.pid}")
        words = ("--root", "/run/root", "restore", "--image-path", "/theirs", "--work-path", "/theirs too", "--detach")
        done = wrapper.run(*words, "--bundle", str(wrapper.bundle), "--pid-file", f"{wrapper.bundle}/pid", "c" * 64)
        assert done.returncode == 0
        (call,) = wrapper.calls
        assert "/images of it" in call
        assert "/theirs" not in call
        assert "T" not in [state_of(pid) for pid in pids]
    finally:
        os.killpg(top.pid, signal.SIGKILL)
        top.wait()


def test_restore_that_the_runtime_began_by_itself_without_a_plan_is_refused(wrapper: Any) -> None:
    done = wrapper.run("restore", "--image-path", "/theirs", "--bundle", str(wrapper.bundle), "c" * 64)
    assert done.returncode == 1
    assert wrapper.calls == []


# ---- configuration ----


def test_configured_runtime_and_defaults(wrapper: Any, tmp_path: Path) -> None:
    other = tmp_path / "other runtime"
    other.write_text("#!/bin/sh\necho other\n")
    other.chmod(0o755)
    wrapper.configure(runtime=str(other), nonsense="ignored")
    assert wrapper.run("state", "x").stdout == "other\n"
    wrapper.environment["NRI_RESTORE_RUNC_CONF"] = "/nowhere"
    assert wrapper.run("state", "x").returncode == 0
    assert wrapper.calls == [["state", "x"]]


def test_reason_from_crius_log_is_shown_so_that_nothing_obeys_it(wrapper: Any) -> None:
    wrapper.prepare()
    line = r"(00.02) 1: Error (criu/x.c:2): no \033[2J\033]0;t\007 \302\233 \342\200\256 file " + "a" * 5000
    wrapper.behaves(f"printf '{line}\\n' >{wrapper.plan}/work/restore.log\nstatus=1")
    assert wrapper.create().returncode == 1
    why = (wrapper.plan / "why").read_text()
    assert why.startswith("CriuFailed: CRIU cannot restore the container: no ?[2J?]0;t? ?? ??? file aaa")
    assert len(why) <= 2001
    assert wrapper.logged == [f"restore: {why.strip()}"]


# ---- CRIU's own root ----


def with_own_root(wrapper: Any, holder: str = 'echo joined >"$5/ns/keyring"') -> None:
    """A plan that has one; ``holder``: what stands for own_root.py, as a shell script."""
    program = wrapper.folder / "holder"
    program.write_text(f"#!/bin/sh\n{holder}\n")
    program.chmod(0o755)
    wrapper.prepare("ok", **{"own-root": f"{program}\nprogram\n"})
    for folder in ("ns", "bin"):
        (wrapper.plan / folder).mkdir()
    for fifo in ("go", "keyring"):
        os.mkfifo(wrapper.plan / "ns" / fifo)


@pytest.mark.parametrize("holder", [":", "echo >&2 OSError: no session keyring can be made; exit 1"])
def test_without_a_session_keyring_of_its_own_nothing_is_restored(wrapper: Any, holder: str) -> None:
    with_own_root(wrapper, holder)
    wrapper.behaves("restored=$$")
    assert wrapper.create().returncode == 1
    assert wrapper.calls == [] or "restore" not in wrapper.calls[0]
    assert "MountFailed: " in wrapper.logged[0]
    assert holder == ":" or "no session keyring can be made" in wrapper.logged[0]


def test_runtime_that_starts_another_criu_than_ours_is_refused(wrapper: Any) -> None:
    with_own_root(wrapper)
    wrapper.behaves("restored=$$")
    assert wrapper.create().returncode == 1
    assert "MountFailed: the runtime did not start CRIU in the root that was made for it" in wrapper.logged[0]


def test_runtime_finds_our_criu_first_and_knows_where_its_root_is(wrapper: Any) -> None:
    with_own_root(wrapper)
    wrapper.behaves(
        f': >"$NRI_RESTORE_PLAN/ns/entered"; echo "$PATH $NRI_RESTORE_CRIU_ROOT" >{wrapper.folder}/seen; restored=$$'
    )
    assert wrapper.create().returncode == 0
    path, place = (wrapper.folder / "seen").read_text().split()
    assert path.startswith(f"{wrapper.plan}/bin:")
    assert place == f"/run/root/{'c' * 64}/criu-root"


def test_root_that_cannot_be_made_is_said(wrapper: Any) -> None:
    with_own_root(wrapper)
    log = wrapper.plan / "work/criu-root.log"
    why = "/x cannot be mounted at /y: No space left on device"
    wrapper.behaves(f'echo "{why}" >>{log}; : >"$NRI_RESTORE_PLAN/ns/failed"; status=1')
    assert wrapper.create().returncode == 1
    assert "cannot be made: /x cannot be mounted at /y: No space left on device" in wrapper.logged[0]
