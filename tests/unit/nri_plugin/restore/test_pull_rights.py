"""Who may use an image that is on the node, by what a registry says to whom."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event
from typing import cast

import pytest

from nri_plugin.config import Policy
from nri_plugin.containerd import containerd_pb2 as api
from nri_plugin.containerd.client import Containerd, NotFound
from nri_plugin.containerd.images import Login
from nri_plugin.logs import Subject
from nri_plugin.restore import pull_rights
from nri_plugin.restore.images import StoredImage
from nri_plugin.restore.pull_rights import Puller, PullRights, WantedImage
from shared.errors import Refused, RestoreError, Unavailable

DIGEST = "sha256:" + "1" * 64
DIFF_IDS = ("sha256:" + "2" * 64,)
IMAGE = StoredImage(DIGEST, DIGEST, "sha256:" + "3" * 64, DIFF_IDS, {})
NAME = "registry.example/team/app"
WANTED = WantedImage("checkpoint image", IMAGE.chain_id, DIGEST, (f"{NAME}:1", DIGEST, f"{NAME}@{DIGEST}"))
GOOD, BAD = ("robot", "s3cret"), ("robot", "wrong")
A, B = Subject("a", "web", "uid-a", "main", "c"), Subject("b", "web", "uid-b", "main", "c")


@dataclass
class World:
    """The runtime with one image, and the registries it asks."""

    state: Path
    takes: set[tuple[str, Login | None]] = field(default_factory=set)
    """Repositories and logins that are granted."""
    away: bool = False
    pulled: bool = True
    asked: list[tuple[str, Login | None]] = field(default_factory=list)
    image: StoredImage | None = IMAGE
    go_on: Event | None = None
    begun: Event = field(default_factory=Event)

    def __post_init__(self) -> None:
        self.rights = PullRights(self.state)

    def was_pulled(self, digest: str) -> bool:
        return self.pulled

    def pull(
        self,
        containerd: object,
        reference: str,
        *,
        timeout_s: float,
        cancelled: Event,
        logins: Callable[[str], Sequence[Login]],
    ) -> None:
        repository, _, digest = reference.partition("@")
        assert digest == DIGEST
        login = next(iter(logins(reference)), None)
        self.asked.append((repository, login))
        self.begun.set()
        if self.go_on is not None:
            self.go_on.wait(10)
        if cancelled.is_set():
            raise Unavailable("Cancelled", "stopped")
        if self.away or (repository, login) not in self.takes:
            raise Unavailable("ImagePullFailed", "connection refused" if self.away else "pull access denied")

    def puller(self, subject: Subject = A, logins: Sequence[Login] = (), **policy: object) -> Puller:
        made = replace(Policy(), **policy)  # type: ignore[arg-type]
        return Puller(self.rights, cast(Containerd, self), made, subject, lambda reference: logins, Event())


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    world = World(tmp_path)

    def stored_image(containerd: object, target: api.Descriptor) -> StoredImage:
        if world.image is None:
            raise NotFound("NotFound", "gone")
        return world.image

    monkeypatch.setattr(pull_rights, "pull", world.pull)
    monkeypatch.setattr(pull_rights, "stored_image", stored_image)
    return world


def refusal(puller: Puller, wanted: WantedImage = WANTED) -> str:
    with pytest.raises(Refused) as refused:
        puller.require(wanted)
    assert refused.value.reason == "PullNotAllowed"
    return refused.value.sentence


def test_pod_without_the_login_is_told_what_the_registry_said(world: World) -> None:
    world.takes = {(NAME, GOOD)}
    said = refusal(world.puller())
    assert said == (
        f"the checkpoint image {NAME}:1 is on this node, but nothing shows that this pod may pull it: pull access "
        "denied (nri-restore asked without a login, for it found none of the pod's); give the pod an imagePullSecret "
        "for that registry; the node's administrator can allow it in [policy] of nri-restore's configuration "
        "(node_images)"
    )
    assert "asked with the pod's logins" in refusal(world.puller(logins=[BAD]))


def test_login_that_the_registry_took_is_remembered_for_its_namespace_alone(world: World) -> None:
    world.takes = {(NAME, GOOD)}
    world.puller(A, [BAD, GOOD]).require(WANTED)
    assert world.asked == [(NAME, None), (NAME, BAD), (NAME, GOOD)]
    world.away = True
    world.puller(replace(A, pod_uid="second"), [GOOD]).require(WANTED)
    refusal(world.puller(replace(A, pod_uid="third")))
    refusal(world.puller(replace(A, pod_uid="third"), [BAD]))
    refusal(world.puller(B, [GOOD]))


def test_restarted_container_of_a_pod_that_could_pull_asks_nobody(world: World) -> None:
    world.takes = {(NAME, GOOD)}
    world.puller(A, [GOOD]).require(WANTED)
    assert world.puller(A).may(WANTED)
    assert not world.puller(replace(A, namespace="b")).may(WANTED)
    assert not world.puller(B).may(WANTED)


def test_pod_without_a_uid_is_not_taken_for_another_without_one(world: World) -> None:
    world.takes = {(NAME, GOOD)}
    world.puller(replace(A, pod_uid=""), [GOOD]).require(WANTED)
    assert not world.puller(replace(A, pod_uid="")).may(WANTED)


def test_what_anybody_gets_is_for_everybody_once_one_has_asked(world: World) -> None:
    world.takes = {(NAME, None), (NAME, GOOD)}
    world.puller(A, [GOOD]).require(WANTED)
    assert world.asked == [(NAME, None)]
    assert world.puller(B).may(WANTED)


def test_right_is_for_the_layers_whatever_they_are_called(world: World) -> None:
    world.takes = {(NAME, None)}
    world.puller().require(WANTED)
    other = WantedImage("checkpoint image", "sha256:" + "9" * 64, DIGEST, WANTED.names)
    assert not world.puller().may(other)
    assert world.puller(B).may(replace(WANTED, names=(), digest=""))


def test_registry_that_gives_other_layers_grants_nothing(world: World) -> None:
    """The name of a base image that is gone is the checkpoint's own word."""
    world.takes = {("evil.example/x", None)}
    wanted = WantedImage("checkpoint's base image", "sha256:" + "9" * 64, DIGEST, (f"evil.example/x@{DIGEST}",))
    assert "is another image" in refusal(world.puller(), wanted)
    assert not world.puller().may(wanted)


@pytest.mark.parametrize(("names", "digest"), [((), DIGEST), ((DIGEST,), DIGEST), ((f"{NAME}:1",), "")])
def test_image_that_no_registry_can_be_asked_for_is_nobodys(world: World, names: Sequence[str], digest: str) -> None:
    said = refusal(world.puller(logins=[GOOD]), replace(WANTED, names=names, digest=digest))
    assert "it has no name in a registry that could be asked" in said
    assert world.asked == []


def test_registries_that_the_policy_does_not_allow_are_not_asked(world: World) -> None:
    world.takes = {(NAME, None)}
    refusal(world.puller(registries=("other.example",)))
    assert world.asked == []
    world.puller(registries=("registry.example/team/*",)).require(WANTED)


@pytest.mark.parametrize(
    ("node_images", "pulled", "may"),
    [
        ("preloaded", False, True),
        ("preloaded", True, False),
        ("verify", False, False),
        ("everyone", True, True),
    ],
)
def test_policy_says_for_whom_images_of_the_node_are(world: World, node_images: str, pulled: bool, may: bool) -> None:
    world.pulled = pulled
    assert world.puller(node_images=node_images).may(WANTED) is may


def test_image_that_is_gone_is_not_taken_for_a_preloaded_one(world: World) -> None:
    world.pulled, world.image = False, None
    assert not world.puller().may(WANTED)
    assert not world.puller().may(replace(WANTED, digest=""))


def test_everyone_and_preloaded_are_not_remembered_for_a_stricter_policy(world: World) -> None:
    world.pulled = False
    for each in ("everyone", "preloaded"):
        world.puller(node_images=each).require(WANTED)
    assert not world.puller(node_images="verify").may(WANTED)


def test_replicas_ask_once_and_share_the_answer(world: World) -> None:
    world.go_on, world.takes = Event(), {(NAME, None)}
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(world.puller().require, WANTED) for _ in range(8)]
        world.begun.wait(10)
        world.go_on.set()
        for each in asked:
            each.result(10)
    assert len(world.asked) == 1
    assert world.rights.asking == {}


def test_refusal_is_shared_with_those_that_wait_but_not_with_another_login(world: World) -> None:
    world.go_on, world.takes = Event(), {(NAME, GOOD)}
    with ThreadPoolExecutor(8) as pool:
        without = [pool.submit(refusal, world.puller()) for _ in range(4)]
        with_login = pool.submit(world.puller(replace(A, pod_uid="other"), [GOOD]).require, WANTED)
        world.begun.wait(10)
        world.go_on.set()
        assert len({each.result(10) for each in without}) == 1
        with_login.result(10)


def test_pod_that_goes_while_others_wait_for_its_answer_leaves_them_to_ask(world: World) -> None:
    world.go_on, world.takes = Event(), {(NAME, None)}
    going = world.puller(A)
    outcome: list[RestoreError] = []

    def ask() -> None:
        try:
            going.require(WANTED)
        except RestoreError as error:
            outcome.append(error)

    first = threading.Thread(target=ask)
    first.start()
    world.begun.wait(10)
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(world.puller(A).require, WANTED)
        going.cancelled.set()
        world.go_on.set()
        second.result(10)
    first.join()
    assert [each.reason for each in outcome] == ["Cancelled"]


def test_runtime_that_is_away_is_no_refusal(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*arguments: object, **options: object) -> None:
        raise Unavailable("RuntimeAway", "is it running?")

    monkeypatch.setattr(pull_rights, "pull", away)
    with pytest.raises(Unavailable) as error:
        world.puller().require(WANTED)
    assert error.value.reason == "RuntimeAway"


def test_time_that_is_up_ends_the_asking(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.takes = {(NAME, GOOD)}
    monkeypatch.setattr(pull_rights, "ASK_S", 0.0)
    refusal(world.puller(logins=[GOOD]))
    assert world.asked == []


def test_image_that_was_pulled_for_a_pod_needs_no_further_asking(world: World) -> None:
    world.puller(A, [GOOD]).granted(IMAGE.chain_id, f"{NAME}:1", GOOD)
    world.puller(A).require(WANTED)
    world.puller(replace(A, pod_uid="other"), [GOOD]).require(WANTED)
    assert world.asked == []
    assert json.dumps(GOOD) not in "".join(each.name for each in world.rights.records.directory.iterdir())
