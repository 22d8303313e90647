from __future__ import annotations

from typing import Any

import pytest

from kubectl_restore.check.pod import PodContainer, choose_container, live_spec
from shared.criu import criu_pb2 as pb
from shared.errors import RestoreError
from shared.spec import RuntimeSpec, parse_spec
from tests.support.checkpoints import SyntheticDump, config_dump, containerd
from tests.support.inspected import kubelet_spec, tcp
from tests.unit.kubectl_restore.check.conftest import Examine, codes, one

BASE = "registry.example/app@sha256:" + "b" * 64
TOKEN = "/var/run/secrets/kubernetes.io/serviceaccount"


def asked(
    *, annotations: dict[str, str] | None = None, spec: dict[str, Any] | None = None, **container: Any
) -> PodContainer:
    return choose_container(
        {
            "kind": "Pod",
            "metadata": {"name": "app-pod", "annotations": annotations or {}},
            "spec": {
                "runtimeClassName": "nri-restore",
                "containers": [{"name": "app", "image": BASE, **container}],
                **(spec or {}),
            },
        },
        "",
        "app",
    )


def bind(path: str, access: str = "rw") -> dict[str, Any]:
    return {"destination": path, "type": "bind", "source": "/node" + path, "options": ["rbind", access]}


def checkpoint(dump: SyntheticDump | None = None, *mounts: dict[str, Any], **process: Any) -> dict[str, bytes]:
    """One whose dump and spec fit an ordinary pod with these mounts."""
    dump = dump or SyntheticDump.of_processes()
    spec = kubelet_spec(**process)
    listed: Any = spec["mounts"]
    for mount in mounts:
        listed.append(mount)
        dump.add_mount(mount["destination"], flags=1 if "ro" in mount["options"] else 0)
    return containerd(dump, spec=spec, config=config_dump(rootfsImageRef=BASE))


def dumped(*mounts: dict[str, Any], **process: Any) -> RuntimeSpec:
    return parse_spec(checkpoint(None, *mounts, **process)["spec.dump"], file="spec.dump")


def test_same_pod_fits(examined: Examine) -> None:
    mounts = (bind("/data"), bind("/etc/hosts"), bind("/etc/hostname"), bind("/dev/shm"), bind(TOKEN, "ro"))
    report = examined(
        checkpoint(None, *mounts),
        pod=asked(volumeMounts=[{"name": "d", "mountPath": "/data"}], command=["/bin/app"], args=["--serve"]),
    )
    assert "PodFits" in codes(report), report
    assert report.verdict == "would restore"


@pytest.mark.parametrize(
    ("container", "code"),
    [
        ({"command": ["/bin/other"]}, "CommandDiffers"),
        ({"tty": True}, "TtyDiffers"),
        ({"securityContext": {"runAsUser": 5}}, "UserDiffers"),
        ({"securityContext": {"runAsGroup": 5}}, "UserDiffers"),
        ({"securityContext": {"privileged": True}}, "PrivilegedDiffers"),
        ({"securityContext": {"capabilities": {"drop": ["ALL"]}}}, "CapabilitiesExceed"),
        ({"securityContext": {"capabilities": {"drop": ["KILL"]}}}, "CapabilitiesExceed"),
        ({"securityContext": {"allowPrivilegeEscalation": False}}, "NoNewPrivilegesLost"),
        ({"securityContext": {"seccompProfile": {"type": "RuntimeDefault"}}}, "SeccompLost"),
        ({"volumeMounts": [{"name": "d", "mountPath": "/more"}]}, "MountUnexpected"),
    ],
)
def test_container_that_asks_for_something_else(examined: Examine, container: dict[str, Any], code: str) -> None:
    report = examined(checkpoint(), pod=asked(**container))
    assert one(report, code).level == "fails"
    assert "PodFits" not in codes(report)
    assert report.exit_code == 1


@pytest.mark.parametrize(
    "container",
    [
        {"command": ["/bin/app", "$(MODE)"]},
        {"args": ["--other"]},
        {"securityContext": {"runAsUser": 0, "runAsGroup": 0}},
        {"securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}},
        {"securityContext": {"capabilities": {"drop": ["ALL"], "add": ["ALL"]}}},
        {"securityContext": {"seccompProfile": {"type": "Unconfined"}}},
        {"tty": False, "securityContext": {"allowPrivilegeEscalation": True, "privileged": False}},
    ],
)
def test_container_that_asks_for_no_less(examined: Examine, container: dict[str, Any]) -> None:
    report = examined(checkpoint(), pod=asked(**container))
    assert "PodFits" in codes(report), report


def test_settings_of_the_pod_hold_unless_the_container_has_its_own(examined: Examine) -> None:
    files = checkpoint()
    assert "UserDiffers" in codes(examined(files, pod=asked(spec={"securityContext": {"runAsUser": 5}})))
    own = asked(spec={"securityContext": {"runAsUser": 5}}, securityContext={"runAsUser": 0})
    assert "UserDiffers" not in codes(examined(files, pod=own))


@pytest.mark.parametrize(
    ("mount", "declared", "code"),
    [
        (bind("/data"), [], "MountMissing"),
        (bind("/data"), [{"name": "d", "mountPath": "/data", "readOnly": True}], None),
        (bind("/data", "ro"), [{"name": "d", "mountPath": "/data"}], None),
        (bind("/data"), [{"name": "c", "mountPath": "/data"}], None),
        (bind("/data", "ro"), [{"name": "c", "mountPath": "/data"}], None),
        (bind("/data"), [{"name": "d", "mountPath": "/data/"}], None),
    ],
)
def test_mounts(examined: Examine, mount: dict[str, Any], declared: list[dict[str, Any]], code: str | None) -> None:
    volumes = [{"name": "d", "emptyDir": {}}, {"name": "c", "configMap": {"name": "c"}}]
    report = examined(checkpoint(None, mount), pod=asked(spec={"volumes": volumes}, volumeMounts=declared))
    assert (code or "PodFits") in codes(report), report


def test_every_missing_mount_is_named_at_once(examined: Examine) -> None:
    report = examined(checkpoint(None, bind("/a"), bind("/b")), pod=asked())
    assert "/a, /b" in one(report, "MountMissing").sentence


def test_token_that_the_pod_turns_off(examined: Examine) -> None:
    pod = asked(spec={"automountServiceAccountToken": False})
    assert TOKEN in one(examined(checkpoint(None, bind(TOKEN, "ro")), pod=pod), "MountMissing").sentence


@pytest.mark.parametrize(
    ("spec", "code"),
    [
        ({"hostPID": True}, "NamespacesDiffer"),
        ({"hostIPC": True}, "NamespacesDiffer"),
        ({"hostNetwork": True}, "PodFits"),
        ({"hostUsers": False}, "NamespacesDiffer"),
        ({"hostPID": False, "hostUsers": True}, "PodFits"),
        ({"runtimeClassName": None}, "HandlerMissing"),
        ({"runtimeClassName": "other"}, "HandlerUnknown"),
    ],
)
def test_settings_of_the_pod(examined: Examine, spec: dict[str, Any], code: str) -> None:
    assert code in codes(examined(checkpoint(), pod=asked(spec=spec)))


def test_privileged_container_fits_its_own_checkpoint(examined: Examine) -> None:
    spec = live_spec(asked(securityContext={"privileged": True}), dumped())
    assert "CAP_SYS_ADMIN" in spec.capabilities.bounding
    assert spec.masked_paths == ()
    assert [mount.options[-1] for mount in spec.mounts if mount.destination == "/sys"] == ["rw"]


def test_other_user_holds_nothing_and_is_in_no_group_of_root() -> None:
    spec = live_spec(asked(securityContext={"runAsUser": 1000}), dumped())
    assert (spec.uid, spec.gid, spec.capabilities.permitted) == (1000, 0, frozenset())


def test_groups_of_the_pod_are_added() -> None:
    pod = asked(spec={"securityContext": {"supplementalGroups": [7, "x"], "fsGroup": 8}})
    assert set(live_spec(pod, dumped()).additional_gids) >= {7, 8}


def test_files_of_the_runtime_follow_the_root() -> None:
    files = dumped(bind("/etc/hostname"), bind("/etc/hosts"))
    spec = live_spec(asked(securityContext={"readOnlyRootFilesystem": True}), files)
    options = {mount.destination: mount.options[-1:] for mount in spec.mounts}
    assert (options["/etc/hostname"], options["/etc/hosts"]) == (("ro",), ("rw",))


def test_locks_need_the_annotation(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.images["filelocks.img"] = [pb.FileLockEntry(flag=2, pid=1)]
    files = checkpoint(dump)
    assert "FileLocksRefused" in codes(examined(files, pod=asked()))
    for key in ("nri-restore/criu", "nri-restore/criu.app"):
        assert "FileLocksRefused" not in codes(examined(files, pod=asked(annotations={key: "file-locks"})))
    other = asked(annotations={"nri-restore/criu.other": "file-locks"})
    assert "FileLocksRefused" in codes(examined(files, pod=other))


def test_connections_that_the_pod_refuses_to_lose(examined: Examine) -> None:
    dump = SyntheticDump.of_processes()
    dump.add_file(tcp(50, 1, ("10.0.0.5", 80), ("10.0.0.6", 9)), descriptor=9)
    files = checkpoint(dump)
    assert "TcpEstablished" in codes(examined(files, pod=asked(annotations={"nri-restore/tcp": "refuse"})))
    assert "TcpEstablished" not in codes(examined(files, pod=asked(annotations={"nri-restore/tcp": "close"})))


@pytest.mark.parametrize(
    ("image", "annotated", "differs"),
    [
        ("registry.example/app@sha256:" + "c" * 64, True, True),
        ("registry.example/app@sha256:" + "c" * 64, False, False),
        (BASE, True, False),
        ("registry.example/app:1", True, False),
    ],
)
def test_image_beside_the_annotation(examined: Examine, image: str, annotated: bool, differs: bool) -> None:
    annotations = {"nri-restore/checkpoint": "x.example/ck:1"} if annotated else {}
    report = examined(checkpoint(), pod=asked(annotations=annotations, image=image))
    assert ("BaseImageDiffers" in codes(report)) is differs


def test_one_broken_rule_is_one_finding_however_many_processes_break_it(examined: Examine) -> None:
    files = checkpoint(SyntheticDump.of_processes(20))
    report = examined(files, pod=asked(securityContext={"allowPrivilegeEscalation": False}))
    assert one(report, "NoNewPrivilegesLost").sentence


def test_mount_that_only_the_kubelet_adds_will_be_missing(examined: Examine) -> None:
    files = checkpoint()
    pod = asked(volumeMounts=[{"name": "t", "mountPath": TOKEN, "readOnly": True}])
    assert TOKEN in one(examined(files, pod=pod), "WillBeMissing").sentence


TEMPLATE = {"spec": {"containers": [{"name": "app"}]}}


@pytest.mark.parametrize(
    "document",
    [
        {"kind": "Pod", **TEMPLATE},
        *({"kind": kind, "spec": {"template": TEMPLATE}} for kind in ("Deployment", "StatefulSet", "Job")),
        {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": TEMPLATE}}}},
    ],
)
def test_container_of_what_makes_pods(document: dict[str, Any]) -> None:
    assert choose_container(document, "", "other").name == "app"


def test_which_container() -> None:
    pod = {"kind": "Pod", "spec": {"containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "c"}]}}
    assert choose_container(pod, "", "b").name == "b"
    assert choose_container(pod, "c", "b").name == "c"
    with pytest.raises(RestoreError, match="a, b, c"):
        choose_container(pod, "", "other")
    with pytest.raises(RestoreError, match="a, b, c"):
        choose_container(pod, "d", "a")


@pytest.mark.parametrize("document", [None, 5, [], {}, {"kind": "Service"}, {"kind": "Pod", "spec": []}])
def test_document_that_is_no_pod(document: Any) -> None:
    with pytest.raises(RestoreError) as refusal:
        choose_container(document, "", "app")
    assert refusal.value.reason == "PodManifestInvalid"


@pytest.mark.parametrize(
    "container",
    [
        {"securityContext": 5},
        {"securityContext": {"runAsUser": "0", "capabilities": [], "seccompProfile": "x"}},
        {"volumeMounts": [5, {"mountPath": 6}], "command": "x"},
        {"tty": "yes"},
    ],
)
def test_nonsense_in_a_manifest_asks_for_nothing(examined: Examine, container: dict[str, Any]) -> None:
    assert "PodFits" in codes(examined(checkpoint(), pod=asked(**container)))


@pytest.mark.parametrize(("limit", "fits"), [("1Mi", False), ("2Mi", True), (None, True), ("nonsense", True)])
def test_memory_limit_must_hold_what_was_dumped(examined: Examine, limit: str | None, fits: bool) -> None:
    pod = asked(resources={"limits": {"memory": limit}} if limit else {})
    report = examined(checkpoint(SyntheticDump.of_processes(pages=512)), pod=pod)
    assert ("MemoryLimitTooLow" not in codes(report)) is fits
