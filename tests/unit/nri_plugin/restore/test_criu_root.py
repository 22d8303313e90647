"""What CRIU's own root is to hold: from the live spec, nothing from a checkpoint."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nri_plugin.restore import criu_root
from nri_plugin.restore.criu_root import write_criu_root
from nri_plugin.restore.plan import Plan
from nri_plugin.restore.request import RestoreRequest
from shared.spec import parse_spec

Written = Callable[..., dict[str, tuple[str, str]]]


@pytest.fixture
def plan(planned: Callable[..., Plan]) -> Plan:
    return planned()


@pytest.fixture
def written(plan: Plan, request_for: Callable[..., RestoreRequest]) -> Written:
    """Options and sources, by target, of the root for a spec with these mounts and namespaces."""

    def write(*mounts: dict[str, Any], namespaces: tuple[dict[str, str], ...] = ()) -> dict[str, tuple[str, str]]:
        spec = {"mounts": list(mounts), "linux": {"namespaces": list(namespaces)}}
        requested = [{"type": "bind", "options": [], **mount} for mount in mounts]
        request = request_for(mounts=requested)
        write_criu_root(plan, request, parse_spec(json.dumps(spec).encode(), file="config.json"))
        words = (plan.read("criu-mounts") or "").split("\0")[:-1]
        return {target: (options, source) for options, source, target in zip(*[iter(words)] * 3, strict=True)}

    return write


def bound(source: Path | str, *options: str) -> dict[str, Any]:
    return {"destination": f"/in{source}", "type": "bind", "source": str(source), "options": ["rbind", *options]}


def test_volumes_are_there_and_their_neighbours_are_not(written: Written, plan: Plan, tmp_path: Path) -> None:
    volume, neighbour = tmp_path / "pod/volume", tmp_path / "pod/secret"
    for each in (volume, neighbour):
        each.mkdir(parents=True)
    found = written(bound(volume, "rprivate"), {"destination": "/dev/shm", "type": "tmpfs", "source": "shm"})
    assert found[str(volume)] == ("all", str(volume))
    assert not any(
        target.startswith(str(neighbour)) or str(neighbour).startswith(f"{target}/")
        for target in found
        if target != "/"
    )
    assert (plan.path / f"criu-root{volume}").is_dir() and not (plan.path / f"criu-root{neighbour}").exists()


def test_file_is_mounted_on_a_file(written: Written, plan: Plan, tmp_path: Path) -> None:
    hosts = tmp_path / "etc hosts"
    hosts.touch()
    assert written(bound(hosts, "rprivate"))[str(hosts)] == ("all", str(hosts))
    assert (plan.path / f"criu-root{hosts}").is_file()


def test_source_that_is_not_there_is_left_to_criu_to_miss(written: Written, tmp_path: Path) -> None:
    assert str(tmp_path / "gone") not in written(bound(tmp_path / "gone"))


def test_what_lies_on_another_mount_comes_after_it_and_needs_no_mount_point(
    written: Written, plan: Plan, tmp_path: Path
) -> None:
    (tmp_path / "volume/below").mkdir(parents=True)
    targets = list(written(bound(tmp_path / "volume/below", "rprivate"), bound(tmp_path / "volume", "rprivate")))
    assert targets[0] == "/"
    assert targets.index(str(tmp_path / "volume")) < targets.index(str(tmp_path / "volume/below"))
    assert not (plan.path / f"criu-root{tmp_path}/volume/below").exists()


def test_volumes_that_follow_the_same_mount_are_seen_through_one(written: Written, tmp_path: Path) -> None:
    for name in ("first", "second"):
        (tmp_path / f"pod/{name}").mkdir(parents=True)
    found = written(*(bound(tmp_path / f"pod/{name}", "rslave") for name in ("first", "second")))
    assert found[str(tmp_path / "pod")] == ("all shared", str(tmp_path / "pod"))
    assert {found[str(tmp_path / f"pod/{name}")][0] for name in ("first", "second")} == {"kept"}


def test_pod_that_has_the_nodes_whole_root_gets_it_there_too(written: Written) -> None:
    assert written(bound("/", "rprivate"))["/"] == ("all", "/")


def test_programs_are_read_only_and_of_settings_only_some_are_there(written: Written) -> None:
    found = written()
    assert found["/usr"] == ("all ro", "/usr")
    assert {target for target in found if target.startswith("/etc")} == set(criu_root.SETTINGS)
    assert not any(target.startswith("/run") for target in found)


def test_namespace_paths_are_there(written: Written, tmp_path: Path) -> None:
    pinned = tmp_path / "netns"
    pinned.touch()
    namespaces = ({"type": "network", "path": str(pinned)}, {"type": "ipc", "path": "/proc/1/ns/ipc"})
    found = written(namespaces=namespaces)
    assert found[str(pinned)] == ("", str(pinned))
    assert "/proc/1/ns/ipc" not in found


def test_path_below_a_link_of_the_system_leads_where_the_link_does(monkeypatch: pytest.MonkeyPatch) -> None:
    link = next((each for each in criu_root.PROGRAMS if Path(each).is_symlink()), None)
    if link is None:
        pytest.skip("this system has no such link")
    assert criu_root._below_links(f"{link}/modules") == f"{Path(link).resolve()}/modules"
    assert criu_root._below_links("/var/lib/x") == "/var/lib/x"


def test_mounts_that_appear_on_the_node_leave_criu_in_the_nodes_root(
    written: Written, plan: Plan, tmp_path: Path
) -> None:
    assert written(bound(tmp_path, "rshared")) == {}
    assert not plan.has("own-root") and not plan.has("bin")


@pytest.mark.parametrize("shared", [True, False])
def test_cgroup_namespace_is_made_where_the_spec_has_one(
    written: Written, plan: Plan, tmp_path: Path, shared: bool
) -> None:
    written(bound(tmp_path, "rshared" if shared else "rprivate"), namespaces=({"type": "cgroup"},))
    assert plan.read("own-cgroup") == f"kubepods/pod1/{plan.container_id}\n"
    assert plan.has("own-root") is not shared
    assert (plan.path / "bin/criu").resolve() == criu_root.CONFINED_CRIU


def test_container_in_the_nodes_cgroup_namespace_stays_there(written: Written, plan: Plan) -> None:
    written(namespaces=({"type": "pid"},))
    assert not plan.has("own-cgroup")
