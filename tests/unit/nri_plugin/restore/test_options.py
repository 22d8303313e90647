from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from nri_plugin.nri.nri_pb2 import Container, PodSandbox
from nri_plugin.restore.options import arguments, criu_config, stopped_pids
from nri_plugin.restore.request import RestoreRequest, request_of
from shared.contract import HANDLER
from shared.criu import criu_pb2 as pb
from shared.criu.dump import Dump
from shared.errors import Refused
from tests.support.pods import Security, dump, read, synthetic_dump


@pytest.fixture
def request_() -> RestoreRequest:
    return request_of(PodSandbox(id="p", runtime_handler=HANDLER), Container(id="c" * 64, name="app"), HANDLER)


@pytest.fixture
def connected() -> Dump:
    made = synthetic_dump(Security())
    socket = pb.InetSkEntry(
        id=77, family=2, type=1, proto=6, state=1, src_addr=[1], dst_addr=[2], src_port=1, dst_port=2
    )
    made.add_file(pb.FileEntry(type=4, id=77, isk=socket), descriptor=9)
    return read(made)


def options(request: RestoreRequest, of: Dump) -> list[str]:
    text = criu_config(request, of)
    assert text.endswith("\n")
    return text.splitlines()


def test_processes_stay_stopped_in_their_new_cgroup_and_connections_are_closed(request_: RestoreRequest) -> None:
    assert options(request_, dump(Security())) == ["leave-stopped", "verbosity 2", "manage-cgroups=ignore", "tcp-close"]


def test_connections_are_kept_where_the_pod_says_so(request_: RestoreRequest, connected: Dump) -> None:
    found = options(replace(request_, tcp="established"), connected)
    assert "tcp-established" in found
    assert "tcp-close" not in found


def test_connections_are_refused_where_the_pod_says_so(request_: RestoreRequest, connected: Dump) -> None:
    asked = replace(request_, tcp="refuse")
    with pytest.raises(Refused) as caught:
        criu_config(asked, connected)
    assert caught.value.reason == "TcpEstablished"
    assert "tcp-close" in options(asked, dump(Security()))
    assert "tcp-close" in options(request_, connected)


def test_options_that_the_pod_switches_on_come_last(request_: RestoreRequest) -> None:
    assert options(replace(request_, criu=("file-locks",)), dump(Security()))[-1] == "file-locks"


def test_arguments_name_images_and_work_directory() -> None:
    assert arguments(Path("/views/images"), Path("/plan/work")) == (
        "--image-path",
        "/views/images",
        "--work-path",
        "/plan/work",
    )


def test_only_processes_that_were_stopped_when_dumped_stay_so() -> None:
    made = synthetic_dump(Security(), 4)
    for pid, state in {1: 1, 2: 3, 3: 6, 4: 3}.items():  # alive, stopped, zombie, stopped
        made.core(pid).tc.task_state = state
    assert stopped_pids(read(made)) == (2, 4)
