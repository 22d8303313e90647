from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from shared.criu import criu_pb2 as pb
from shared.preflight.platform import version_numbers
from tests.support.checkpoints import SyntheticDump, containerd, set_aarch64
from tests.unit.kubectl_restore.check.conftest import Examine, codes, one

LOG = b"(00.0) Version: 4.2.1 (gitid 0)\n(00.0) Running on a Linux 6.8.0-41-generic #1 SMP x86_64\n"
CPU_LINE = b"(00.0) cpu: x86_family 25 x86_vendor_id AuthenticAMD x86_model_id A CPU\n"
WORDS = 19


def with_log(log: bytes, dump: SyntheticDump | None = None) -> dict[str, bytes]:
    return containerd(dump) | {"dump.log": log}


def test_same_machine_would_do(examined: Examine) -> None:
    report = examined(with_log(LOG + CPU_LINE))
    assert report.verdict == "would restore"
    assert codes(report) == {
        "CheckpointWhole",
        "ArchitectureSame",
        "KernelNewEnough",
        "CriuNewEnough",
        "BaseNotChecked",
        "CpuSuffices",
    }


@pytest.mark.parametrize(
    ("machine", "code", "verdict"),
    [
        ({"os": "darwin"}, "NotLinux", "would fail"),
        ({"architecture": "aarch64"}, "ArchitectureDiffers", "would fail"),
        ({"architecture": None}, "ArchitectureUnknown", "could not tell"),
        ({"kernel": None}, "KernelUnknown", "would restore"),
        ({"kernel": "5.15.0"}, "KernelOlder", "would restore"),
        ({"kernel": "6.9"}, "KernelNewEnough", "would restore"),
        ({"criu_version": "4.1"}, "CriuTooOld", "would fail"),
        ({"criu_version": "3.19"}, "CriuTooOld", "would fail"),
        ({"criu_version": "4.10"}, "CriuNewEnough", "would restore"),
        ({"criu_version": None}, "CriuUnknown", "could not tell"),
        ({"criu_version": None, "criu_missing": True}, "CriuMissing", "would fail"),
    ],
)
def test_machines(examined: Examine, machine: dict[str, Any], code: str, verdict: str) -> None:
    report = examined(with_log(LOG + CPU_LINE), **machine)
    assert one(report, code).sentence
    assert report.verdict == verdict


def test_nothing_else_is_said_of_a_machine_without_linux(examined: Examine) -> None:
    assert codes(examined(with_log(LOG), os="darwin")) == {"NotLinux", "CheckpointWhole", "BaseNotChecked"}


def test_checkpoint_without_a_log_restores_as_far_as_one_can_see(examined: Examine) -> None:
    files = with_log(LOG)
    del files["dump.log"]
    report = examined(files)
    assert {"KernelUnknown", "CriuNotRecorded"} <= codes(report)
    assert report.verdict == "would restore"


def narrow() -> SyntheticDump:
    """A dump whose page maps are as CRIU wrote them before 4.2."""
    dump = SyntheticDump.of_processes()
    for name, messages in dump.images.items():
        if name.startswith("pagemap-"):
            (run,) = messages[1:]
            assert isinstance(run, pb.PagemapEntry)
            messages[1] = pb.PagemapEntry(vaddr=run.vaddr, compat_nr_pages=run.nr_pages, flags=run.flags)
    return dump


@pytest.mark.parametrize("log", [None, b"(00.0) Version: 4.0 (gitid 0)\n"], ids=["no log", "a log that lies"])
@pytest.mark.parametrize(
    ("made", "criu", "code"),
    [
        (SyntheticDump.of_processes, "4.1.1", "CriuTooOld"),
        (SyntheticDump.of_processes, "4.2", None),
        (narrow, "4.1.1", None),
    ],
)
def test_images_say_which_criu_reads_them(
    examined: Examine, log: bytes | None, made: Callable[[], SyntheticDump], criu: str, code: str | None
) -> None:
    files = with_log(log or b"", made())
    if log is None:
        del files["dump.log"]
    found = codes(examined(files, criu_version=criu))
    assert (code or ("CriuNotRecorded" if log is None else "CriuNewEnough")) in found
    assert ("CriuTooOld" in found) is (code is not None)


def test_what_no_pod_may_have_is_a_finding(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.core(1).thread_core.sched_policy = 6
    report = examined(dump)
    assert report.verdict == "would fail"
    assert "sched_policy" in one(report, "FieldExceeds").sentence


def descriptor_of_a_process(number: int) -> pb.FileEntry:
    return pb.FileEntry(type=20, id=number, pidfd=pb.PidfdEntry(id=number, nspid=1))


@pytest.mark.parametrize(("criu", "fails"), [("4.0", True), ("4.1", False)])
def test_descriptor_of_a_process_needs_its_criu(examined: Examine, criu: str, fails: bool) -> None:
    dump = narrow()
    dump.add_file(descriptor_of_a_process(99), descriptor=9)
    files = with_log(b"", dump)
    del files["dump.log"]
    assert ("CriuTooOld" in codes(examined(files, criu_version=criu))) is fails


def test_field_that_an_older_criu_would_leave_out_needs_a_newer_one(examined: Examine) -> None:
    dump = narrow()
    dump.core(1).thread_core.creds.no_new_privs = 1
    files = with_log(b"", dump)
    del files["dump.log"]
    found = one(examined(files, criu_version="3.18"), "CriuTooOld")
    assert "(CRIU 3.19), which CRIU 3.18 of node-1 would leave out silently" in found.sentence
    assert "CriuTooOld" not in codes(examined(files, criu_version="3.19"))


@pytest.mark.parametrize(("kernel", "fails"), [("5.5.0", True), ("5.6.0", False)])
def test_time_namespace_needs_its_kernel(examined: Examine, kernel: str, fails: bool) -> None:
    dump = SyntheticDump.of_processes()
    dump.ids(1).time_ns_id = 77
    report = examined(dump, kernel=kernel)
    assert ("KernelFeatureMissing" in codes(report)) is fails


def test_descriptor_of_a_process_needs_its_kernel(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_file(descriptor_of_a_process(90), descriptor=9)
    assert "Linux 5.3" in one(examined(dump, kernel="4.18.0"), "KernelFeatureMissing").sentence


@pytest.mark.parametrize(
    ("fstype", "version", "code"),
    [(12, 2, "CgroupVersionDiffers"), (23, 1, "CgroupVersionDiffers"), (23, None, "CgroupVersionUnknown")],
)
def test_cgroups(examined: Examine, fstype: int, version: int | None, code: str) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/sys/fs/cgroup", fstype=fstype, ext_key=None)
    assert one(examined(dump, cgroup_version=version), code).sentence


@pytest.mark.parametrize(("fstype", "version"), [(12, 1), (23, 2)])
def test_same_cgroups_are_not_worth_a_word(examined: Examine, fstype: int, version: int) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_mount("/sys/fs/cgroup", fstype=fstype, ext_key=None)
    found = codes(examined(dump, cgroup_version=version))
    assert not {code for code in found if code.startswith("Cgroup")}


@pytest.mark.parametrize(("lsm", "differs"), [("none", True), ("selinux", True), ("apparmor", False), (None, False)])
def test_profiles_need_their_security_module(examined: Examine, lsm: str | None, differs: bool) -> None:
    dump = SyntheticDump.of_processes()
    dump.inventory().lsmtype = 2
    dump.core(1).thread_core.creds.lsm_profile = b"docker-default"
    assert ("LsmDiffers" in codes(examined(dump, lsm=lsm))) is differs


def test_module_that_no_process_has_a_label_of_does_not_matter(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.inventory().lsmtype = 2
    assert "LsmDiffers" not in codes(examined(dump, lsm="none"))


@pytest.mark.parametrize(("here", "differs"), [(2440, True), (832, False), (None, False)])
def test_recorded_size_of_the_extended_state_must_be_the_same(
    examined: Examine, here: int | None, differs: bool
) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["cpuinfo.img"] = [pb.CpuinfoEntry(x86_entry=[pb.CpuinfoX86Entry(vendor_id=1, xsave_size=832)])]
    assert ("CpuStateDiffers" in codes(examined(dump, xsave_bytes=here))) is differs


def with_state(bits: int) -> SyntheticDump:
    """A thread that had these parts of the extended state in use."""
    dump = SyntheticDump.of_processes()
    dump.core(1).thread_info.fpregs.xsave.xstate_bv = bits
    return dump


def test_registers_in_use_need_their_processor(examined: Examine) -> None:
    report = examined(with_state(0b1110_0111))
    assert "avx512f" in one(report, "CpuFeaturesMissing").sentence
    assert report.verdict == "would fail"


@pytest.mark.parametrize("bits", [0b11, 0b111, 1 << 9])
def test_registers_that_the_processor_has(examined: Examine, bits: int) -> None:
    assert "CpuNeedsUnknown" in codes(examined(with_state(bits)))


def with_record(word: int, bits: int) -> dict[str, bytes]:
    dump = SyntheticDump.of_processes()
    capability = [0] * WORDS
    capability[word] = bits
    dump.images["cpuinfo.img"] = [pb.CpuinfoEntry(x86_entry=[pb.CpuinfoX86Entry(vendor_id=1, capability=capability)])]
    return with_log(LOG, dump)


def test_recorded_instructions_must_be_there(examined: Examine) -> None:
    assert "avx512f" in one(examined(with_record(9, 1 << 16)), "CpuFeaturesMissing").sentence
    assert "CpuSuffices" in codes(examined(with_record(9, 1 << 5)))


def test_recorded_features_that_are_no_instructions_do_not_matter(examined: Examine) -> None:
    assert "CpuSuffices" in codes(examined(with_record(4, 1 << 31)))  # hypervisor


def test_record_of_few_words_is_read(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["cpuinfo.img"] = [pb.CpuinfoEntry(x86_entry=[pb.CpuinfoX86Entry(vendor_id=1, capability=[1 << 26])])]
    assert "CpuSuffices" in codes(examined(dump))


def test_unknown_processor_can_decide_only_when_something_is_needed(examined: Examine) -> None:
    assert "CpuUnknown" in codes(examined(with_state(0b111), cpu_flags=None))
    assert "CpuNeedsUnknown" in codes(examined(with_state(0b11), cpu_flags=None))


def test_flags_that_labels_do_not_name_are_not_judged(examined: Examine) -> None:
    report = examined(with_state(0b1110_0111), cpu_flags=frozenset({"avx"}), cpu_judged=frozenset({"avx"}))
    assert "CpuFeaturesMissing" not in codes(report)


def test_other_architecture_says_nothing_of_its_processor(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    set_aarch64(dump)
    assert "CpuNeedsUnknown" in codes(examined(dump, architecture="aarch64"))


@pytest.mark.parametrize(
    ("version", "numbers"), [("4.2.1", (4, 2)), ("v6.8-rc1", (6, 8)), ("x", None), (None, None), ("4", None)]
)
def test_version_numbers(version: str | None, numbers: tuple[int, int] | None) -> None:
    assert version_numbers(version) == numbers
