"""Which kernel objects a task shares with others: namespaces, descriptor table. Source: core.proto."""

from __future__ import annotations

from dataclasses import dataclass

from shared.criu.criu_pb2 import TaskKobjIdsEntry


@dataclass(frozen=True, slots=True)
class TaskIds:
    """CRIU's own numbers, equal where two tasks share the object; 0 where the dump does not say."""

    vm: int
    files: int
    fs: int
    pid_ns: int
    net_ns: int
    ipc_ns: int
    uts_ns: int
    mnt_ns: int
    user_ns: int
    cgroup_ns: int
    time_ns: int

    @classmethod
    def of(cls, entry: TaskKobjIdsEntry) -> TaskIds:
        return cls(
            vm=entry.vm_id,
            files=entry.files_id,
            fs=entry.fs_id,
            pid_ns=entry.pid_ns_id,
            net_ns=entry.net_ns_id,
            ipc_ns=entry.ipc_ns_id,
            uts_ns=entry.uts_ns_id,
            mnt_ns=entry.mnt_ns_id,
            user_ns=entry.user_ns_id,
            cgroup_ns=entry.cgroup_ns_id,
            time_ns=entry.time_ns_id,
        )

    @property
    def namespaces(self) -> tuple[int, ...]:
        return (
            self.pid_ns,
            self.net_ns,
            self.ipc_ns,
            self.uts_ns,
            self.mnt_ns,
            self.user_ns,
            self.cgroup_ns,
            self.time_ns,
        )
