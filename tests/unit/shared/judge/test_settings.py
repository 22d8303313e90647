from __future__ import annotations

from dataclasses import replace

import pytest

from shared.errors import Refused
from shared.judge import PodIdentity, check_command, check_settings
from shared.spec import Namespace
from tests.support.pods import Security, spec

PLAIN = spec(Security())


def refusal(dumped: Security, asked: Security) -> Refused:
    with pytest.raises(Refused) as caught:
        check_settings(spec(dumped), spec(asked), PodIdentity())
    return caught.value


def test_same_command_or_none_passes() -> None:
    check_command(PLAIN, PLAIN.args)
    check_command(PLAIN, ())


@pytest.mark.parametrize("args", [("/bin/app",), ("/bin/app", "--serve", ""), ("/bin/app --serve",)])
def test_other_command_is_refused_with_both(args: tuple[str, ...]) -> None:
    with pytest.raises(Refused) as caught:
        check_command(PLAIN, args)
    assert caught.value.reason == "CommandDiffers"
    assert '["/bin/app", "--serve"]' in caught.value.sentence


def test_long_commands_are_cut() -> None:
    with pytest.raises(Refused) as caught:
        check_command(replace(PLAIN, args=("sh", "-c", "x" * 100_000)), ("sh", "-c", "y" * 100_000))
    assert len(caught.value.sentence) < 400
    assert '"sh", "-c", "yyy' in caught.value.sentence


def test_sentences_say_what_to_set() -> None:
    assert "set tty: true" in refusal(Security(tty=True), Security()).sentence
    assert "set tty: false" in refusal(Security(), Security(tty=True)).sentence
    who = refusal(Security(uid=1000, gid=1000), Security())
    assert "as 0:0, the checkpointed one ran as 1000:1000" in who.sentence
    assert "set runAsUser: 1000 and runAsGroup: 1000" in who.sentence
    assert "set privileged: true" in refusal(Security(privileged=True), Security()).sentence


@pytest.mark.parametrize("kind", ["pid", "user", "cgroup", "ipc"])
def test_namespace_that_only_one_side_has_is_refused_by_name(kind: str) -> None:
    without = replace(PLAIN, namespaces=tuple(each for each in PLAIN.namespaces if each.type != kind))
    with_it = replace(without, namespaces=(*without.namespaces, Namespace(kind, "")))
    for dumped, live in ((without, with_it), (with_it, without)):
        with pytest.raises(Refused) as caught:
            check_settings(dumped, live, PodIdentity())
        assert caught.value.reason == "NamespacesDiffer"
        assert f"having a {kind} namespace" in caught.value.sentence
    check_settings(with_it, with_it, PodIdentity())


@pytest.mark.parametrize("kind", ["network", "uts"])
def test_pod_may_use_the_nodes_network_where_the_dump_did_not(kind: str) -> None:
    without = replace(PLAIN, namespaces=tuple(each for each in PLAIN.namespaces if each.type != kind))
    check_settings(PLAIN, without, PodIdentity())


@pytest.mark.parametrize("shared", [False, True])
def test_sharing_processes_with_the_pod_must_be_as_it_was(shared: bool) -> None:
    error = refusal(Security(share_processes=shared), Security(share_processes=not shared))
    assert error.reason == "NamespacesDiffer"
    assert f"set shareProcessNamespace: {str(shared).lower()}" in error.sentence
