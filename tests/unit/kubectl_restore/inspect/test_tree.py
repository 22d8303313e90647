from __future__ import annotations

import io

from kubectl_restore.inspect.tree import AREAS_MAX, FILES_MAX, tree_of
from kubectl_restore.printing import print_tree
from shared.criu import criu_pb2 as pb
from tests.support.checkpoints import SyntheticDump, containerd, crio
from tests.support.inspected import regular, rich_dump, tcp
from tests.unit.kubectl_restore.inspect.conftest import Gather


def lines(inspected: Gather, content: object) -> list[str]:
    out = io.StringIO()
    print_tree(tree_of(inspected(content)), out)
    return out.getvalue().splitlines()


def test_long_lists_are_cut_and_say_so(inspected: Gather) -> None:
    dump = SyntheticDump.of_processes()
    for number in range(FILES_MAX * 2):
        dump.add_file(tcp(100 + number, 10, ("0.0.0.0", 1000 + number)), descriptor=100 + number)
    dump.images["filelocks.img"] = [pb.FileLockEntry(flag=1, pid=1, fd=n) for n in range(FILES_MAX + 1)]
    text = "\n".join(lines(inspected, dump))
    assert "and 23 more open files; -o json has them all" in text
    assert f"and {FILES_MAX} more sockets" in text
    assert "and 1 more file lock;" in text
    assert AREAS_MAX < FILES_MAX


def test_what_matters_of_a_process_is_beside_it(inspected: Gather) -> None:
    dump = rich_dump([b"", b"x\0"])
    dump.core(2).tc.task_state = 3
    dump.images["pstree.img"][1].threads.append(77)  # type: ignore[attr-defined]
    dump.images["core-77.img"] = [pb.CoreEntry(mtype=1, thread_core=dump.core(2).thread_core)]
    text = "\n".join(lines(inspected, dump))
    assert "1 [app]\n" in text
    assert "2 x  stopped\n" in text
    assert "/bin/app, in /, uid 0, 2 threads" in text


def test_plugins_and_deletions_are_told(inspected: Gather) -> None:
    dump = SyntheticDump.of_processes()
    dump.inventory().plugins_entry.plugins.append(b"cuda_plugin.so")
    text = "\n".join(lines(inspected, crio(dump)))
    assert "with CRIU's plugins cuda_plugin.so" in text
    assert "1 deleted path" in text


def test_rights_that_differ_are_told_apart(inspected: Gather) -> None:
    dump = SyntheticDump.of_processes(3)
    creds = dump.core(2).thread_core.creds
    creds.euid, creds.no_new_privs = 33, 1
    creds.cap_eff[:] = [0, 0]
    text = "\n".join(lines(inspected, dump))
    assert "process 1, 3: uid 0" in text
    assert "process 2: uid 33" in text
    assert "capabilities none" in text
    assert "could gain AUDIT_WRITE" in text
    assert "no new privileges" in text


def test_control_characters_cannot_leave_a_line(inspected: Gather) -> None:
    dump = rich_dump([b"a\nb\x1b[2J\0", b"x\0"])
    dump.add_file(regular(90, "/tmp/\x1b]0;title\x07\r\n└── fake"), descriptor=90)
    found = lines(inspected, containerd(dump))
    assert not [line for line in found if not line.isprintable()]
    assert not [line for line in found if line.startswith("└── fake")]
