"""What must not be restored is refused before CRIU runs: with a reason code, in one sentence, leaving nothing behind.

On containerd 1.7 the pod's image is the checkpoint; on 2.1, which would restore such an image by itself, the pod keeps
its own image and names the checkpoint in an annotation.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, Literal

import pytest

from shared.contract import HANDLER, POD_CHECKPOINT, POD_ON_FAILURE, TRIGGER_CONTAINERD
from shared.elf import read_elf
from tests.e2e.node.cri import CriError
from tests.e2e.node.image import LAYER, OciImage, busybox_image, digest_of, image_of
from tests.e2e.node.inventory import COLLECTED_S
from tests.e2e.node.kubelet import RUNNING, Kubelet, Pod
from tests.e2e.node.node import Node
from tests.e2e.node.registry import Registry
from tests.e2e.node.roots import Flavour, base_root
from tests.e2e.node.specs import ContainerSpec, PodSpec, VolumeMount
from tests.e2e.node.waiting import wait_for
from tests.e2e.refusal_bench import CRIU, STRICT, WRAPPER, Bench, Step, open_bench, reference, sentence_of
from tests.e2e.restoring import KEEPS_NOTHING, WAITS, Taken, checkpointed, have, local, push_base, with_daemon
from tests.e2e.spoilt_checkpoints import GROUPS, OPTIONAL, PAGES
from tests.e2e.spoilt_images import Archive, archive_image, delete_all, import_all, wrong_magic


@pytest.fixture(scope="module")
def strict(node_of: Callable[[Flavour], Node], own_checkpoint: Taken, checkpoints: Path) -> Taken:
    kubelet = Kubelet(node_of("containerd-2.1"))
    spec = replace(STRICT, image=own_checkpoint.base)
    return checkpointed(kubelet, checkpoints, PodSpec("strict"), spec, lambda each: len(each.log()) > 3)


@pytest.fixture(scope="module")
def large(node_of: Callable[[Flavour], Node], own_checkpoint: Taken, checkpoints: Path) -> Taken:
    """Holds 20 MB of memory."""
    kubelet = Kubelet(node_of("containerd-2.1"))
    script = "held=$(head -c 20000000 /dev/zero | tr '\\0' x); while :; do echo ${#held}; sleep 0.1; done"
    spec = ContainerSpec(own_checkpoint.base, "large", ("sh", "-c", script))
    return checkpointed(kubelet, checkpoints, PodSpec("large"), spec, lambda each: len(each.log()) > 3)


@pytest.fixture(scope="module")
def bench(node: Node, own_checkpoint: Taken, strict: Taken, large: Taken) -> Iterator[Bench]:
    taken = {"plain": own_checkpoint, "strict": strict, "large": large}
    containers = {each.case: each.checkpoint for each in SETTINGS} | {name: name for name in taken}
    with open_bench(node, taken, containers) as bench:
        yield bench


# ---- what the pod asks for differs from what was dumped ----


@dataclass(frozen=True)
class Setting:
    case: str
    checkpoint: Literal["plain", "strict", "large"]
    changes: dict[str, Any]
    reason: str
    at: Step
    says: str


MORE: Final = (VolumeMount("/more", "more"), VolumeMount("/other", "other", read_only=True))
DATA = STRICT.mounts[0]
SETTINGS: Final = (
    Setting("tty", "plain", {"tty": True}, "TtyDiffers", "start", "set tty: false"),
    Setting("no-tty", "strict", {"tty": False}, "TtyDiffers", "start", "set tty: true"),
    Setting("user", "plain", {"run_as_user": 1000}, "UserDiffers", "start", "set runAsUser: 0"),
    Setting("group", "plain", {"run_as_group": 1000}, "UserDiffers", "start", "runAsGroup: 0"),
    Setting("read-only-root", "plain", {"read_only_root": True}, "WritableFileOpen", "start", "has /root/held open"),
    Setting("drop-all", "plain", {"drop_capabilities": ("ALL",)}, "CapabilitiesExceed", "start", "CAP_CHOWN"),
    Setting("drop-one", "plain", {"drop_capabilities": ("NET_RAW",)}, "CapabilitiesExceed", "start", "CAP_NET_RAW"),
    Setting(
        "no-new-privileges",
        "plain",
        {"no_new_privileges": True},
        "NoNewPrivilegesLost",
        "start",
        "allowPrivilegeEscalation: false",
    ),
    Setting("seccomp", "plain", {"seccomp": "RuntimeDefault"}, "SeccompLost", "start", "seccomp"),
    Setting("command", "plain", {"command": ("sleep", "1")}, "CommandDiffers", "create", 'would run ["sleep", "1"]'),
    Setting("no-mounts", "strict", {"mounts": ()}, "MountMissing", "create", "the mounts /data, /settings"),
    Setting("one-mount", "strict", {"mounts": (DATA,)}, "MountMissing", "create", "the mount /settings"),
    Setting(
        "more-mounts",
        "strict",
        {"mounts": (*STRICT.mounts, *MORE)},
        "MountUnexpected",
        "create",
        "mounts /more, /other",
    ),
    Setting(
        "memory",
        "large",
        {"memory_limit_bytes": 16 << 20},
        "MemoryLimitTooLow",
        "create",
        "the container's limit is 16 MiB; raise resources.limits.memory",
    ),
)


@pytest.mark.parametrize("name", ["plain", "strict", "large"])
def test_sound_checkpoint_restores_on_the_same_bench(bench: Bench, name: str) -> None:
    bench.restore(bench.restoring(name, name, memory_limit_bytes=64 << 20))


def test_checkpoint_without_its_optional_files_restores(bench: Bench) -> None:
    name = reference("bare")
    import_all(bench.node, {name: archive_image(bench.archive.without(*OPTIONAL))})
    _restore_other_image(bench, name)


@pytest.mark.parametrize("group", [make.__name__ for make in GROUPS])
def test_spoilt_checkpoint_is_refused(bench: Bench, group: str) -> None:
    assert bench.groups[group]
    for each in bench.groups[group]:
        spec = bench.restoring("plain", each.case)
        bench.refuse(spec if bench.by_annotation else replace(spec, image=reference(each.case)), each.reason, each.says)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.case)
def test_pod_that_asks_for_something_else_is_refused(bench: Bench, setting: Setting) -> None:
    spec = bench.restoring(setting.checkpoint, setting.case, **setting.changes)
    bench.refuse(spec, setting.reason, setting.says, at=setting.at)


def test_privileged_pod_is_refused(bench: Bench) -> None:
    plain = bench.taken["plain"]
    annotations = {POD_CHECKPOINT: reference("plain")} if bench.by_annotation else {}
    pod = bench.kubelet.run_pod(plain.pod("privileged", privileged=True, annotations=annotations))
    spec = bench.restoring("plain", "privileged", privileged=True)
    bench.refuse(spec, "PrivilegedDiffers", "set privileged: false", pod=pod)
    bench.restore(replace(spec, privileged=False), pod)
    pod.remove(grace_s=0)


# ---- annotations ----


def _annotated(bench: Bench, name: str, **values: str) -> Pod:
    """A pod whose container ``main`` is to be restored from ``plain``; further annotations by their last word."""
    keys = {key.replace("_", "-"): value for key, value in values.items()}
    named = {f"nri-restore/{key}": value for key, value in {"checkpoint": reference("plain"), **keys}.items()}
    return bench.kubelet.run_pod(bench.taken["plain"].pod(name, annotations=named))


@pytest.mark.parametrize(
    ("values", "reason", "says"),
    [
        ({"tcp": "maybe"}, "AnnotationInvalid", "close, established, refuse"),
        ({"on_failure": "retry"}, "AnnotationInvalid", "fail, start"),
        ({"on_restart": "always"}, "AnnotationInvalid", "restore, start"),
        ({"lazy": "yes"}, "AnnotationInvalid", "false, true"),
        ({"lazy": "true"}, "LazyUnsupported", "nri-restore/lazy"),
        ({"criu": "file-locks shell-job"}, "AnnotationInvalid", 'has "shell-job"'),
        ({"checkpoint": "Not A reference"}, "AnnotationInvalid", "no image reference"),
        ({"checkpoint": ""}, "AnnotationInvalid", "no image reference"),
        ({"tpc": "close"}, "AnnotationInvalid", 'there is no annotation "nri-restore/tpc"'),
    ],
    ids=lambda each: next(iter(each)) if isinstance(each, dict) else "",
)
def test_annotation_that_cannot_be_followed_is_refused(
    bench: Bench, values: dict[str, str], reason: str, says: str
) -> None:
    pod = _annotated(bench, "annotated", **values)
    bench.refuse(replace(bench.taken["plain"].spec, name="main"), reason, says, pod=pod)
    pod.remove(grace_s=0)


def test_every_known_annotation_value_restores(bench: Bench) -> None:
    pod = _annotated(
        bench, "known", tcp="refuse", on_failure="fail", on_restart="restore", lazy="false", criu="file-locks"
    )
    bench.restore(replace(bench.taken["plain"].spec, name="main"), pod)
    pod.remove(grace_s=0)


@pytest.mark.parametrize("handler", ["", "crun"])
def test_checkpoint_under_another_handler_is_refused_and_its_neighbour_is_not(bench: Bench, handler: str) -> None:
    plain = bench.taken["plain"]
    pod = bench.kubelet.run_pod(replace(plain.annotated("elsewhere", reference("plain")), handler=handler))
    bench.refuse(plain.spec, "HandlerMissing", f"the runtime handler {HANDLER}", pod=pod)
    neighbour = pod.run(replace(plain.spec, name="neighbour", command=("sleep", "1000")))
    assert neighbour.state == RUNNING
    pod.remove(grace_s=0)


def test_annotation_that_names_an_ordinary_image_is_refused(bench: Bench) -> None:
    plain = bench.taken["plain"]
    pod = _annotated(bench, "ordinary", checkpoint=plain.base)
    bench.refuse(replace(plain.spec, name="main"), "NotACheckpoint", "is an ordinary image", pod=pod)
    pod.remove(grace_s=0)


def test_pod_whose_image_is_not_the_checkpoints_base_is_refused(bench: Bench, busybox: str) -> None:
    plain = bench.taken["plain"]
    pod = _annotated(bench, "other-base")
    spec = replace(plain.spec, name="main", image=busybox)
    bench.refuse(spec, "BaseImageDiffers", "use that image", pod=pod)
    pod.remove(grace_s=0)


# ---- images that cannot be had ----


def _truncated(layer: bytes, *, compressed: bool) -> OciImage:
    """A checkpoint image whose layer ends too early, and whose digest says so too."""
    sound = image_of([layer], {"Cmd": ["sh"]}, annotations={TRIGGER_CONTAINERD: "counter"})
    if not compressed:
        return sound
    manifest = json.loads(sound.manifest)
    blob = gzip.compress(layer, mtime=0)[:-1000]
    manifest["layers"] = [{"mediaType": f"{LAYER}+gzip", "digest": digest_of(blob), "size": len(blob)}]
    config = manifest["config"]["digest"]
    return OciImage(json.dumps(manifest).encode(), {config: sound.blobs[config], digest_of(blob): blob})


def test_archive_that_ends_inside_a_member_cannot_even_be_pulled(bench: Bench, registry: Registry) -> None:
    # Not the sound one's bytes: containerd does not read a layer again whose contents it has unpacked already.
    whole = bench.archive.with_content("stats-dump", lambda _: b"of another archive").tar()
    header = whole.rindex(b"status.dump\0")
    for case, image in {
        "in-a-header": _truncated(whole[: header + 100], compressed=False),
        "in-content": _truncated(whole[: header + 512 + 10], compressed=False),
        "in-pages": _truncated(whole[: len(whole) // 2 + 1], compressed=False),
        "in-gzip": _truncated(whole, compressed=True),
    }.items():
        registry.push(image, f"truncated:{case}")
        pod = _annotated(bench, case, checkpoint=local(f"truncated:{case}"))
        spec = replace(bench.taken["plain"].spec, name="main")
        bench.refuse(spec, "ImagePullFailed", "a layer cannot be unpacked: unexpected EOF", at="start", pod=pod)
        pod.remove(grace_s=0)


@pytest.mark.parametrize(
    ("checkpoint", "says"),
    [
        (local("nothing/here:1"), "the registry has no such image"),
        (local("own@sha256:" + "0" * 64), "the registry has no such image"),
        ("localhost:5999/nothing:1", "connection refused"),
        ("registry.nowhere.invalid/nothing:1", "lookup registry.nowhere.invalid"),
    ],
)
def test_checkpoint_that_cannot_be_pulled_is_refused(bench: Bench, checkpoint: str, says: str) -> None:
    pod = _annotated(bench, "unpullable", checkpoint=checkpoint)
    bench.refuse(replace(bench.taken["plain"].spec, name="main"), "ImagePullFailed", says, at="start", pod=pod)
    pod.remove(grace_s=0)


def test_image_that_was_never_unpacked_is_refused(bench: Bench) -> None:
    name = reference("packed")
    image = archive_image(bench.archive.with_content("stats-dump", lambda _: b"another digest"))
    words = ["ctr", "--namespace", "k8s.io", "images", "import", "--no-unpack", "-"]
    bench.node.run(words, stdin=image.archive(name), timeout_s=300)
    wait_for(lambda: bench.node.cri.image_status(name) is not None, f"the CRI to know {name}")
    pod = _annotated(bench, "packed", checkpoint=name)
    bench.refuse(replace(bench.taken["plain"].spec, name="main"), "ImageNotUnpacked", "pull it again", pod=pod)
    pod.remove(grace_s=0)
    delete_all(bench.node, [name])


@pytest.mark.parametrize(
    ("reference_of_base", "reason", "at", "says"),
    [
        ("sha256:" + "f" * 64, "BaseImageUnknown", "create", "without a registry digest"),
        ("", "BaseImageUnknown", "create", "without a registry digest"),
        ("localhost:5999/gone@sha256:" + "f" * 64, "BaseImageMissing", "start", "connection refused"),
        (local("gone@sha256:" + "f" * 64), "BaseImageMissing", "start", "the registry has no such image"),
    ],
    ids=["by-id", "none", "registry-away", "deleted"],
)
def test_base_image_that_cannot_be_had_is_refused(
    bench: Bench, reference_of_base: str, reason: str, at: Step, says: str
) -> None:
    """In image mode; with an annotation the pod's own image is the base, or is refused as another one."""
    if bench.by_annotation:
        reason, at, says = "BaseImageDiffers", "create", "is not the one the checkpoint was made on"
    name = reference("baseless")
    spoilt = bench.archive.with_json("config.dump", rootfsImageRef=reference_of_base, rootfsImageName="")
    import_all(bench.node, {name: archive_image(spoilt)})
    pod = _annotated(bench, "baseless", checkpoint=name) if bench.by_annotation else bench.pod
    spec = bench.restoring("plain", "main")
    bench.refuse(spec if bench.by_annotation else replace(spec, image=name), reason, says, at=at, pod=pod)
    if bench.by_annotation:
        pod.remove(grace_s=0)
    delete_all(bench.node, [name])


def test_base_image_that_was_recorded_by_its_id_restores_where_the_node_has_it(bench: Bench) -> None:
    """As CRI-O and Podman record it."""
    base = bench.node.cri.image_status(bench.taken["plain"].base)
    assert base is not None
    name = reference("by-id")
    spoilt = bench.archive.with_json("config.dump", rootfsImageRef=base.id, rootfsImageName="")
    import_all(bench.node, {name: archive_image(spoilt)})
    _restore_other_image(bench, name)


def test_base_image_with_another_build_of_a_program_is_refused(bench: Bench, registry: Registry) -> None:
    """Same size, same mode, another build ID; in archives of engines that record no digest only this can show it."""
    root = base_root("containerd-1.7")
    busybox = (root / "bin/busybox").read_bytes()
    facts = read_elf(busybox)
    assert facts is not None and facts.build_id
    build_id = bytes.fromhex(facts.build_id)
    assert busybox.count(build_id) == 1
    rebuilt = busybox.replace(build_id, bytes(len(build_id)))
    image = busybox_image(root, {"etc/changed": b"original\n", "bin/busybox": rebuilt})
    base = push_base(registry, image, "rebuilt:1")
    have(bench.node, base)
    name = reference("rebuilt")
    spoilt = bench.archive.with_json("config.dump", rootfsImageRef=local(f"rebuilt@{image.digest}"))
    import_all(bench.node, {name: archive_image(spoilt)})
    pod = _annotated(bench, "rebuilt", checkpoint=name)
    spec = replace(bench.taken["plain"].spec, name="main", image=base)
    bench.refuse(spec, "BuildIdDiffers", "/bin/busybox had the build ID", at="start", pod=pod)
    pod.remove(grace_s=0)
    delete_all(bench.node, [name, base])


def test_node_without_room_is_refused(bench: Bench) -> None:
    folder = "/var/lib/nri-restore"
    bench.node.sh(f"mkdir -p {folder}; mount -t tmpfs -o size=1m tmpfs {folder}")
    try:
        bench.refuse(bench.restoring("plain", "plain"), "NodeDiskLow", f"a restore's files in {folder}")
    finally:
        bench.node.sh(f"umount -l {folder}")
    bench.restore(bench.restoring("plain", "plain"))


def _restore_other_image(bench: Bench, name: str) -> None:
    spec = bench.restoring("plain", "main")
    if bench.by_annotation:
        pod = _annotated(bench, "other", checkpoint=name)
        bench.restore(spec, pod)
        pod.remove(grace_s=0)
    else:
        bench.restore(replace(spec, image=name))
    delete_all(bench.node, [name])


# ---- the node's CRIU ----


@pytest.mark.parametrize(
    ("answer", "reason", "says"),
    [
        ("echo Version: 3.19", "CriuTooOld", "this node has 3.19"),
        ("echo nothing of use", "CriuMissing", "criu --version"),
        ("exit 127", "CriuMissing", "criu --version"),
    ],
    ids=["old", "babble", "broken"],
)
def test_node_whose_criu_cannot_restore_is_refused(bench: Bench, answer: str, reason: str, says: str) -> None:
    criu = bench.node.path(CRIU)
    criu.write_text(WRAPPER.replace("#!/bin/sh\n", f'#!/bin/sh\n[ "$1" != --version ] || {{ {answer}; exit; }}\n'))
    try:
        bench.refuse(bench.restoring("plain", "plain"), reason, says)
    finally:
        criu.write_text(WRAPPER)
    bench.restore(bench.restoring("plain", "plain"))


def test_refusals_leave_nothing_on_the_node(bench: Bench) -> None:
    bench.pod.remove(grace_s=0)
    wait_for(lambda: not bench.leftovers(), "the plans to be gone")
    mine = {"images", "content", "snapshots"}  # the spoilt images themselves

    def left() -> list[str]:
        beyond = bench.node.inventory().beyond(bench.before, ignoring=mine)
        # runc keeps every seccomp filter it has compiled.
        found = [each for kind in beyond.values() for each in kind if "/.cache/seccomp" not in each]
        return found + [each for each in bench.node.inventory().snapshots if each.startswith("nri-restore-")]

    wait_for(lambda: not left(), f"everything to be gone: {left()}", timeout_s=COLLECTED_S, every_s=0.2)


# ---- containerd 2.1's own restore, which ours takes over ----


def test_checkpoint_that_containerd_would_restore_by_itself_is_refused_alike(
    node_21: Node, own_checkpoint: Taken, kubelet_of: Callable[[Node], Kubelet]
) -> None:
    with_daemon(node_21, KEEPS_NOTHING + WAITS)
    have(node_21, own_checkpoint.base)
    archive = Archive.read(own_checkpoint.archive.read_bytes())
    spoilt = {
        "native-sound": archive,
        "native-magic": archive.with_content("checkpoint/core-1.img", lambda core: wrong_magic(core, "core-%.img")),
        "native-pages": archive.with_content(PAGES, lambda pages: pages[:-1]),
        "native-diff": archive.without("rootfs-diff.tar"),
        "native-spec": archive.without("spec.dump"),
    }
    images = {reference(case): archive_image(each) for case, each in spoilt.items()}
    import_all(node_21, images)
    kubelet = kubelet_of(node_21)
    pod = kubelet.run_pod(own_checkpoint.pod("native"))
    wrong = {POD_CHECKPOINT: reference("native-sound"), POD_ON_FAILURE: "start"}
    other = kubelet.run_pod(own_checkpoint.pod("native-or-start", annotations=wrong))

    def details_of(case: str, pod: Pod = pod, **changes: Any) -> tuple[Step, str]:
        step: Step = "create"
        with pytest.raises(CriError) as caught:
            container = pod.create(own_checkpoint.restored(reference(case), **changes))
            step = "start"
            container.start()
        if step == "start":
            container.remove()
            pod.containers.remove(container)
        return step, caught.value.details

    for case, reason in {
        "native-magic": "WrongMagic",
        "native-pages": "PagesSizeMismatch",
        "native-diff": "MetadataMissing",
    }.items():
        step, details = details_of(case)
        assert step == "create"
        sentence_of(details, reason)
    step, details = details_of("native-sound", tty=True)
    assert step == "start"
    sentence_of(details, "TtyDiffers")
    # What containerd restores it never starts, whatever the pod would have instead.
    step, details = details_of("native-sound", other)
    assert step == "create", details
    assert "is a checkpoint too" in sentence_of(details, "BaseImageDiffers")
    # Its own words: containerd reads this file before it asks any plugin.
    assert 'failed to read "spec.dump"' in details_of("native-spec")[1]
    assert pod.run(own_checkpoint.restored(reference("native-sound"))).state == RUNNING
    for each in (pod, other):
        each.remove(grace_s=0)
    delete_all(node_21, images)
