from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from nri_plugin.nri.nri_pb2 import Container, LinuxContainer, Mount, PodSandbox
from nri_plugin.restore.request import KEYS, RestoreRequest, concerns_us, request_of
from shared.contract import HANDLER, POD_CHECKPOINT
from shared.errors import Refused

CHECKPOINT = "registry.example/checkpoints/app:1"


def pod(handler: str = HANDLER, **annotations: str) -> PodSandbox:
    """Annotations by their last word; ``__`` stands for the dot before a container's name."""
    named = {f"nri-restore/{key.replace('__', '.').replace('_', '-')}": value for key, value in annotations.items()}
    return PodSandbox(
        id="p" * 64, name="shop", uid="u-1", namespace="default", annotations=named, runtime_handler=handler
    )


def container(name: str = "app", **annotations: str) -> Container:
    """As containerd describes it; ``annotations`` beside the image's name."""
    known = {"io.kubernetes.cri.image-name": "registry.example/app:1", **annotations}
    return Container(
        id="c" * 64,
        name=name,
        annotations=known,
        args=["/bin/app", "--serve"],
        mounts=[Mount(destination="/etc/hosts", type="bind", source="/node/hosts", options=["rbind", "ro"])],
        linux=LinuxContainer(cgroups_path="/kubepods/pod1/c"),
    )


def refusal(sandbox: PodSandbox, asked: Container | None = None) -> Refused:
    with pytest.raises(Refused) as caught:
        request_of(sandbox, asked or container(), HANDLER)
    return caught.value


def test_crio_says_image_and_root_in_annotations_of_its_own() -> None:
    own = {"io.kubernetes.cri-o.ImageRef": "a" * 64, "io.kubernetes.cri-o.MountPoint": "/storage/merged"}
    request = request_of(pod(), container(**own), HANDLER, crio=True)
    assert (request.image, request.rootfs) == (f"sha256:{'a' * 64}", "/storage/merged")


def test_on_crio_annotations_that_a_pod_gave_its_container_mean_nothing() -> None:
    """CRI-O passes all of a pod's annotations on, also those that are containerd's own."""
    forged = {"restored": "true", "checkpointImage": "registry.example/secret:1"}
    request = request_of(pod(), container(**forged), HANDLER, crio=True)
    assert (request.image, request.native) == ("", False)


def test_pod_cannot_say_which_options_criu_gets() -> None:
    sandbox = pod()
    sandbox.annotations["org.criu.config"] = "/proc/self/fd/0"
    assert refusal(sandbox).reason == "AnnotationInvalid"


def test_request_says_all_that_a_restore_needs() -> None:
    request = request_of(pod(), container(**{"io.kubernetes.container.restartCount": "3"}), HANDLER)
    assert request.container_id == "c" * 64
    assert (request.pod_id, request.pod_name, request.pod_namespace, request.pod_uid) == (
        "p" * 64,
        "shop",
        "default",
        "u-1",
    )
    assert (request.container_name, request.attempt) == ("app", 3)
    assert (request.image, request.checkpoint, request.native) == ("registry.example/app:1", None, False)
    assert request.args == ("/bin/app", "--serve")
    assert request.cgroups_path == "/kubepods/pod1/c"
    (mount,) = request.mounts
    assert (mount.destination, mount.type, mount.source, mount.options) == (
        "/etc/hosts",
        "bind",
        "/node/hosts",
        ("rbind", "ro"),
    )


def test_defaults_fail_restore_again_and_close_connections() -> None:
    request = request_of(pod(), container(), HANDLER)
    assert (request.on_failure, request.on_restart, request.tcp, request.criu) == ("fail", "restore", "close", ())


@pytest.mark.parametrize("sandbox", [pod(), pod(checkpoint=CHECKPOINT, tcp="established", criu="file-locks")])
def test_request_survives_its_way_through_json(sandbox: PodSandbox) -> None:
    request = request_of(sandbox, container(), HANDLER)
    assert RestoreRequest.from_json(json.loads(request.to_json())) == request


# ---- whose container it is ----


def test_every_container_under_the_handler_concerns_us() -> None:
    assert concerns_us(pod(), container(), HANDLER)
    assert not concerns_us(pod(handler="runc"), container(), HANDLER)
    assert not concerns_us(pod(handler=""), container(), HANDLER)


def test_container_whose_pod_names_a_checkpoint_concerns_us_under_any_handler() -> None:
    assert concerns_us(pod(handler="runc", checkpoint=CHECKPOINT), container(), HANDLER)
    assert concerns_us(pod(handler="", checkpoint__app=CHECKPOINT), container(), HANDLER)
    assert not concerns_us(pod(handler="runc", checkpoint__app=CHECKPOINT), container("sidecar"), HANDLER)
    assert not concerns_us(pod(handler="runc", tcp="close"), container(), HANDLER)


@pytest.mark.parametrize("handler", ["", "runc", "nri-restore2"])
def test_checkpoint_under_another_handler_is_refused(handler: str) -> None:
    error = refusal(pod(handler=handler, checkpoint=CHECKPOINT))
    assert error.reason == "HandlerMissing"
    assert "runtimeClassName" in error.sentence


def test_name_that_the_kubelet_gave_wins_over_the_runtimes() -> None:
    """containerd 2.1 calls every container that it restores by itself ``containerd``."""
    asked = container("containerd")
    asked.labels["io.kubernetes.container.name"] = "app"
    assert request_of(pod(checkpoint__app=CHECKPOINT), asked, HANDLER).checkpoint == CHECKPOINT
    assert concerns_us(pod(handler="runc", checkpoint__app=CHECKPOINT), asked, HANDLER)


# ---- annotations ----


def test_annotation_of_one_container_wins_over_the_pods() -> None:
    sandbox = pod(checkpoint="a/b:1", checkpoint__app=CHECKPOINT, tcp="refuse", tcp__app="established")
    request = request_of(sandbox, container(), HANDLER)
    assert (request.checkpoint, request.tcp) == (CHECKPOINT, "established")
    other = request_of(sandbox, container("other"), HANDLER)
    assert (other.checkpoint, other.tcp) == ("a/b:1", "refuse")


@pytest.mark.parametrize(
    ("key", "values"),
    [
        ("on_failure", ("fail", "start")),
        ("on_restart", ("restore", "start")),
        ("tcp", ("close", "established", "refuse")),
    ],
)
def test_each_value_is_taken_and_any_other_is_refused(key: str, values: tuple[str, ...]) -> None:
    for value in values:
        annotations: dict[str, Any] = {key: value}
        assert getattr(request_of(pod(**annotations), container(), HANDLER), key) == value
    for wrong in ("", "Fail", values[0].upper(), f" {values[0]}", "yes"):
        error = refusal(pod(**{key: wrong}))
        assert error.reason == "AnnotationInvalid"
        assert f'nri-restore/{key.replace("_", "-")} is "{wrong}"' in error.sentence
        assert ", ".join(values) in error.sentence


def test_lazy_pages_are_refused_until_they_are_offered() -> None:
    assert request_of(pod(lazy="false"), container(), HANDLER)
    assert refusal(pod(lazy="true")).reason == "LazyUnsupported"
    assert refusal(pod(lazy="1")).reason == "AnnotationInvalid"


@pytest.mark.parametrize("text", ["file-locks", " file-locks ", "file-locks,file-locks", ",", ""])
def test_criu_options_are_words(text: str) -> None:
    assert set(request_of(pod(criu=text), container(), HANDLER).criu) <= {"file-locks"}


@pytest.mark.parametrize(
    "text", ["shell-job", "file-locks ext-unix-sk", "file-locks\nexternal mnt[]:x", "tcp-established"]
)
def test_criu_options_that_widen_what_a_process_may_do_are_refused(text: str) -> None:
    error = refusal(pod(criu=text))
    assert error.reason == "AnnotationInvalid"
    assert "allowed are file-locks" in error.sentence


@pytest.mark.parametrize("value", ["", " ", "Not A reference", "http://x/y", "a" * 5000, "app/UPPER", "x@sha256:12"])
def test_checkpoint_that_is_no_reference_is_refused(value: str) -> None:
    error = refusal(pod(checkpoint=value))
    assert error.reason == "AnnotationInvalid"
    assert POD_CHECKPOINT in error.sentence
    assert len(error.sentence) < 400


@pytest.mark.parametrize("value", [CHECKPOINT, "busybox", "localhost:5000/a/b:1", f"a/b@sha256:{'0' * 64}"])
def test_every_form_of_a_reference_is_taken(value: str) -> None:
    assert request_of(pod(checkpoint=value), container(), HANDLER).checkpoint == value


@pytest.mark.parametrize("key", ["tpc", "check_point", "onfailure", "checkpoints", "checkpoint_app"])
def test_misspelt_annotation_is_refused_and_the_known_are_named(key: str) -> None:
    error = refusal(pod(**{key: "x"}))
    assert error.reason == "AnnotationInvalid"
    assert f'there is no annotation "nri-restore/{key.replace("_", "-")}"' in error.sentence
    assert all(known in error.sentence for known in KEYS)


def test_annotation_from_anywhere_is_shown_in_one_short_printable_line() -> None:
    for sandbox in (pod(checkpoint="a\n" + "b" * 9000), pod(criu="\x1b[2J" + "b" * 9000), pod(tcp="\x1b" * 9000)):
        sentence = refusal(sandbox).sentence
        assert sentence.isprintable()
        assert len(sentence) < 800


def test_annotations_of_others_are_not_looked_at() -> None:
    sandbox = pod()
    sandbox.annotations["nri-restored/tcp"] = "x"
    sandbox.annotations["example.com/nri-restore/tcp"] = "x"
    assert request_of(sandbox, container(), HANDLER)


# ---- the runtime's own restore ----


def test_restore_that_containerd_began_by_itself_is_recognised() -> None:
    asked = container(restored="true", checkpointImage="registry.example/ck:1")
    request = request_of(pod(), asked, HANDLER)
    assert (request.native, request.image) == (True, "registry.example/ck:1")


def test_annotation_does_not_hide_the_runtimes_own_restore() -> None:
    asked = container(restored="true", checkpointImage="registry.example/ck:1")
    request = request_of(pod(checkpoint=CHECKPOINT), asked, HANDLER)
    assert (request.native, request.checkpoint) == (True, CHECKPOINT)


@pytest.mark.parametrize(
    ("native", "checkpoint", "layered", "starts"),
    [
        (False, CHECKPOINT, False, True),
        (False, None, True, True),
        (False, None, False, False),
        (True, CHECKPOINT, False, False),
        (True, None, True, False),
    ],
)
def test_container_can_start_where_its_image_has_programs_and_the_runtime_starts_it(
    request_for: Callable[..., RestoreRequest], native: bool, checkpoint: str | None, layered: bool, starts: bool
) -> None:
    assert request_for("a", native=native, checkpoint=checkpoint).can_start(layered=layered) == starts


@pytest.mark.parametrize("annotations", [{"restored": "false", "checkpointImage": "x"}, {"restored": "true"}])
def test_half_of_the_runtimes_marks_is_no_restore_of_its_own(annotations: dict[str, str]) -> None:
    request = request_of(pod(), container(**annotations), HANDLER)
    assert (request.native, request.image) == (False, "registry.example/app:1")


@pytest.mark.parametrize("count", ["9" * 5000, "", "x", "-1", "1.5"])
def test_restart_count_that_is_none_is_the_first_attempt(count: str) -> None:
    assert request_of(pod(), container(**{"io.kubernetes.container.restartCount": count}), HANDLER).attempt == 0


def test_pod_without_a_handler_is_ours_where_that_is_the_default() -> None:
    assert not concerns_us(pod(""), container(), HANDLER)
    assert concerns_us(pod(""), container(), HANDLER, default=True)
    assert not concerns_us(pod("runc"), container(), HANDLER, default=True)
    assert request_of(pod(""), container(), HANDLER, default=True).by_default
    assert not request_of(pod(), container(), HANDLER, default=True).by_default
    named = request_of(pod("", checkpoint=CHECKPOINT), container(), HANDLER, default=True)
    assert (named.checkpoint, named.by_default) == (CHECKPOINT, False)
    with pytest.raises(Refused, match="does not run under the runtime handler"):
        request_of(pod("runc", checkpoint=CHECKPOINT), container(), HANDLER, default=True)
