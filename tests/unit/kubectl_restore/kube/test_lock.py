from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kubectl_restore.kube.connection import Connection, connect
from kubectl_restore.kube.flags import ClusterFlags
from kubectl_restore.kube.lock import lease_name, one_at_a_time
from kubectl_restore.kube.pods import Target, target
from shared.errors import RestoreError, Unavailable
from tests.support.kube_api import KubeApi
from tests.support.kube_backend import Answer


@pytest.fixture
def web(api: KubeApi) -> Target:
    return target(api.add_pod("web"))


def expire(api: KubeApi, renewed: str | None) -> None:
    from tests.support.kube_objects import resource

    (lease,) = api.leases()
    of = resource("leases", "coordination.k8s.io")
    assert of
    api.objects.merge(of, "default", lease["metadata"]["name"], {"spec": {"renewTime": renewed}})


def test_lock_is_a_lease_that_says_who_and_is_gone_afterwards(
    api: KubeApi, connection: Connection, web: Target
) -> None:
    with one_at_a_time(connection, web):
        (lease,) = api.leases()
        assert lease["metadata"]["name"] == lease_name(web) == f"checkpoint-{web.uid}-main"
        assert "@" in lease["spec"]["holderIdentity"]
        assert lease["metadata"]["annotations"]["nri-restore/pod"] == "web"
    assert api.leases() == []


def test_second_one_is_told_who_holds_it(api: KubeApi, connection: Connection, web: Target) -> None:
    with one_at_a_time(connection, web):
        (lease,) = api.leases()
        with pytest.raises(Unavailable) as error, one_at_a_time(connection, web):
            pass
        assert lease["spec"]["holderIdentity"] in str(error.value)
        assert error.value.reason == "CheckpointInProgress"
        assert len(api.leases()) == 1


def test_other_containers_are_not_locked(api: KubeApi, connection: Connection) -> None:
    pod = api.add_pod("web", "a", "b")
    with one_at_a_time(connection, target(pod, "a")), one_at_a_time(connection, target(pod, "b")):
        assert len(api.leases()) == 2


@pytest.mark.parametrize("renewed", ["2020-01-01T00:00:00.000000Z", None, "garbage"])
def test_lease_of_a_dead_holder_is_taken_over(
    api: KubeApi, connection: Connection, web: Target, renewed: str | None
) -> None:
    with one_at_a_time(connection, web):
        expire(api, renewed)
        with one_at_a_time(connection, web):
            assert len(api.leases()) == 1


def test_error_inside_frees_the_lock(api: KubeApi, connection: Connection, web: Target) -> None:
    with pytest.raises(KeyboardInterrupt), one_at_a_time(connection, web):
        raise KeyboardInterrupt
    assert api.leases() == []


def test_lease_made_anew_by_others_is_left_alone(api: KubeApi, connection: Connection, web: Target) -> None:
    with one_at_a_time(connection, web):
        (mine,) = api.leases()
        connection.call("DELETE", f"/apis/coordination.k8s.io/v1/namespaces/default/leases/{mine['metadata']['name']}")
        api.create("Lease", mine["metadata"]["name"], "default", spec={})
    assert len(api.leases()) == 1


def test_race_for_a_dead_holders_lease_has_one_winner(api: KubeApi, kubeconfig: Path, web: Target) -> None:
    api.create("Lease", lease_name(web), "default", spec={})
    start, outcomes = threading.Barrier(4), []

    def compete() -> None:
        connection = connect(ClusterFlags(kubeconfig=kubeconfig))
        start.wait()
        try:
            with one_at_a_time(connection, web):
                outcomes.append("won")
                finished.wait(60)
        except Unavailable:
            outcomes.append("lost")
            if outcomes.count("lost") == 3:
                finished.set()

    finished = threading.Event()
    threads = [threading.Thread(target=compete) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert sorted(outcomes) == ["lost", "lost", "lost", "won"]


def test_lock_is_renewed(api: KubeApi, connection: Connection, web: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kubectl_restore.kube.lock._RENEW_S", 0.02)
    renewed = threading.Event()
    with one_at_a_time(connection, web):
        for _ in range(3000):
            if len(api.asked("PATCH", "/leases/")) >= 2:
                renewed.set()
                break
            threading.Event().wait(0.02)
    assert renewed.is_set()


def test_without_the_right_to_lock_it_goes_on_and_says_so(api: KubeApi, connection: Connection, web: Target) -> None:
    api.forbid("create", "leases")
    notes: list[str] = []
    with one_at_a_time(connection, web, notes.append):
        assert api.leases() == []
    assert "no lock against a second checkpoint" in notes[0]


def test_other_errors_end_it(api: KubeApi, connection: Connection, web: Target) -> None:
    api.answer("POST", "/leases$", Answer(500, "etcd is away"))
    with pytest.raises(RestoreError, match="etcd is away"), one_at_a_time(connection, web):
        pass
