# mypy: disable-error-code="type-arg"
from google.protobuf.internal import containers as _containers
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PluginsEntry(_message.Message):
    __slots__ = ("plugins",)
    PLUGINS_FIELD_NUMBER: _ClassVar[int]
    plugins: _containers.RepeatedScalarFieldContainer[bytes]
    def __init__(self, plugins: _Optional[_Iterable[bytes]] = ...) -> None: ...

class InventoryEntry(_message.Message):
    __slots__ = ("img_version", "fdinfo_per_id", "root_ids", "ns_per_id", "root_cg_set", "lsmtype", "tcp_close", "network_lock_method", "plugins_entry", "dump_criu_run_id", "allow_uprobes")
    IMG_VERSION_FIELD_NUMBER: _ClassVar[int]
    FDINFO_PER_ID_FIELD_NUMBER: _ClassVar[int]
    ROOT_IDS_FIELD_NUMBER: _ClassVar[int]
    NS_PER_ID_FIELD_NUMBER: _ClassVar[int]
    ROOT_CG_SET_FIELD_NUMBER: _ClassVar[int]
    LSMTYPE_FIELD_NUMBER: _ClassVar[int]
    TCP_CLOSE_FIELD_NUMBER: _ClassVar[int]
    NETWORK_LOCK_METHOD_FIELD_NUMBER: _ClassVar[int]
    PLUGINS_ENTRY_FIELD_NUMBER: _ClassVar[int]
    DUMP_CRIU_RUN_ID_FIELD_NUMBER: _ClassVar[int]
    ALLOW_UPROBES_FIELD_NUMBER: _ClassVar[int]
    img_version: int
    fdinfo_per_id: bool
    root_ids: TaskKobjIdsEntry
    ns_per_id: bool
    root_cg_set: int
    lsmtype: int
    tcp_close: bool
    network_lock_method: int
    plugins_entry: PluginsEntry
    dump_criu_run_id: bytes
    allow_uprobes: bool
    def __init__(self, img_version: _Optional[int] = ..., fdinfo_per_id: _Optional[bool] = ..., root_ids: _Optional[_Union[TaskKobjIdsEntry, _Mapping]] = ..., ns_per_id: _Optional[bool] = ..., root_cg_set: _Optional[int] = ..., lsmtype: _Optional[int] = ..., tcp_close: _Optional[bool] = ..., network_lock_method: _Optional[int] = ..., plugins_entry: _Optional[_Union[PluginsEntry, _Mapping]] = ..., dump_criu_run_id: _Optional[bytes] = ..., allow_uprobes: _Optional[bool] = ...) -> None: ...

class PstreeEntry(_message.Message):
    __slots__ = ("pid", "ppid", "pgid", "sid", "threads")
    PID_FIELD_NUMBER: _ClassVar[int]
    PPID_FIELD_NUMBER: _ClassVar[int]
    PGID_FIELD_NUMBER: _ClassVar[int]
    SID_FIELD_NUMBER: _ClassVar[int]
    THREADS_FIELD_NUMBER: _ClassVar[int]
    pid: int
    ppid: int
    pgid: int
    sid: int
    threads: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, pid: _Optional[int] = ..., ppid: _Optional[int] = ..., pgid: _Optional[int] = ..., sid: _Optional[int] = ..., threads: _Optional[_Iterable[int]] = ...) -> None: ...

class TaskKobjIdsEntry(_message.Message):
    __slots__ = ("vm_id", "files_id", "fs_id", "sighand_id", "pid_ns_id", "net_ns_id", "ipc_ns_id", "uts_ns_id", "mnt_ns_id", "user_ns_id", "cgroup_ns_id", "time_ns_id")
    VM_ID_FIELD_NUMBER: _ClassVar[int]
    FILES_ID_FIELD_NUMBER: _ClassVar[int]
    FS_ID_FIELD_NUMBER: _ClassVar[int]
    SIGHAND_ID_FIELD_NUMBER: _ClassVar[int]
    PID_NS_ID_FIELD_NUMBER: _ClassVar[int]
    NET_NS_ID_FIELD_NUMBER: _ClassVar[int]
    IPC_NS_ID_FIELD_NUMBER: _ClassVar[int]
    UTS_NS_ID_FIELD_NUMBER: _ClassVar[int]
    MNT_NS_ID_FIELD_NUMBER: _ClassVar[int]
    USER_NS_ID_FIELD_NUMBER: _ClassVar[int]
    CGROUP_NS_ID_FIELD_NUMBER: _ClassVar[int]
    TIME_NS_ID_FIELD_NUMBER: _ClassVar[int]
    vm_id: int
    files_id: int
    fs_id: int
    sighand_id: int
    pid_ns_id: int
    net_ns_id: int
    ipc_ns_id: int
    uts_ns_id: int
    mnt_ns_id: int
    user_ns_id: int
    cgroup_ns_id: int
    time_ns_id: int
    def __init__(self, vm_id: _Optional[int] = ..., files_id: _Optional[int] = ..., fs_id: _Optional[int] = ..., sighand_id: _Optional[int] = ..., pid_ns_id: _Optional[int] = ..., net_ns_id: _Optional[int] = ..., ipc_ns_id: _Optional[int] = ..., uts_ns_id: _Optional[int] = ..., mnt_ns_id: _Optional[int] = ..., user_ns_id: _Optional[int] = ..., cgroup_ns_id: _Optional[int] = ..., time_ns_id: _Optional[int] = ...) -> None: ...

class RlimitEntry(_message.Message):
    __slots__ = ("cur", "max")
    CUR_FIELD_NUMBER: _ClassVar[int]
    MAX_FIELD_NUMBER: _ClassVar[int]
    cur: int
    max: int
    def __init__(self, cur: _Optional[int] = ..., max: _Optional[int] = ...) -> None: ...

class TaskRlimitsEntry(_message.Message):
    __slots__ = ("rlimits",)
    RLIMITS_FIELD_NUMBER: _ClassVar[int]
    rlimits: _containers.RepeatedCompositeFieldContainer[RlimitEntry]
    def __init__(self, rlimits: _Optional[_Iterable[_Union[RlimitEntry, _Mapping]]] = ...) -> None: ...

class CredsEntry(_message.Message):
    __slots__ = ("uid", "gid", "euid", "egid", "suid", "sgid", "fsuid", "fsgid", "cap_inh", "cap_prm", "cap_eff", "cap_bnd", "secbits", "groups", "lsm_profile", "lsm_sockcreate", "apparmor_data", "no_new_privs", "cap_amb")
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    EUID_FIELD_NUMBER: _ClassVar[int]
    EGID_FIELD_NUMBER: _ClassVar[int]
    SUID_FIELD_NUMBER: _ClassVar[int]
    SGID_FIELD_NUMBER: _ClassVar[int]
    FSUID_FIELD_NUMBER: _ClassVar[int]
    FSGID_FIELD_NUMBER: _ClassVar[int]
    CAP_INH_FIELD_NUMBER: _ClassVar[int]
    CAP_PRM_FIELD_NUMBER: _ClassVar[int]
    CAP_EFF_FIELD_NUMBER: _ClassVar[int]
    CAP_BND_FIELD_NUMBER: _ClassVar[int]
    SECBITS_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    LSM_PROFILE_FIELD_NUMBER: _ClassVar[int]
    LSM_SOCKCREATE_FIELD_NUMBER: _ClassVar[int]
    APPARMOR_DATA_FIELD_NUMBER: _ClassVar[int]
    NO_NEW_PRIVS_FIELD_NUMBER: _ClassVar[int]
    CAP_AMB_FIELD_NUMBER: _ClassVar[int]
    uid: int
    gid: int
    euid: int
    egid: int
    suid: int
    sgid: int
    fsuid: int
    fsgid: int
    cap_inh: _containers.RepeatedScalarFieldContainer[int]
    cap_prm: _containers.RepeatedScalarFieldContainer[int]
    cap_eff: _containers.RepeatedScalarFieldContainer[int]
    cap_bnd: _containers.RepeatedScalarFieldContainer[int]
    secbits: int
    groups: _containers.RepeatedScalarFieldContainer[int]
    lsm_profile: bytes
    lsm_sockcreate: bytes
    apparmor_data: bytes
    no_new_privs: int
    cap_amb: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, uid: _Optional[int] = ..., gid: _Optional[int] = ..., euid: _Optional[int] = ..., egid: _Optional[int] = ..., suid: _Optional[int] = ..., sgid: _Optional[int] = ..., fsuid: _Optional[int] = ..., fsgid: _Optional[int] = ..., cap_inh: _Optional[_Iterable[int]] = ..., cap_prm: _Optional[_Iterable[int]] = ..., cap_eff: _Optional[_Iterable[int]] = ..., cap_bnd: _Optional[_Iterable[int]] = ..., secbits: _Optional[int] = ..., groups: _Optional[_Iterable[int]] = ..., lsm_profile: _Optional[bytes] = ..., lsm_sockcreate: _Optional[bytes] = ..., apparmor_data: _Optional[bytes] = ..., no_new_privs: _Optional[int] = ..., cap_amb: _Optional[_Iterable[int]] = ...) -> None: ...

class PosixTimerEntry(_message.Message):
    __slots__ = ("clock_id",)
    CLOCK_ID_FIELD_NUMBER: _ClassVar[int]
    clock_id: int
    def __init__(self, clock_id: _Optional[int] = ...) -> None: ...

class TaskTimersEntry(_message.Message):
    __slots__ = ("posix",)
    POSIX_FIELD_NUMBER: _ClassVar[int]
    posix: _containers.RepeatedCompositeFieldContainer[PosixTimerEntry]
    def __init__(self, posix: _Optional[_Iterable[_Union[PosixTimerEntry, _Mapping]]] = ...) -> None: ...

class TaskCoreEntry(_message.Message):
    __slots__ = ("task_state", "exit_code", "personality", "comm", "timers", "rlimits", "cg_set", "old_seccomp_mode", "old_seccomp_filter", "loginuid", "oom_score_adj", "stop_signo")
    TASK_STATE_FIELD_NUMBER: _ClassVar[int]
    EXIT_CODE_FIELD_NUMBER: _ClassVar[int]
    PERSONALITY_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    TIMERS_FIELD_NUMBER: _ClassVar[int]
    RLIMITS_FIELD_NUMBER: _ClassVar[int]
    CG_SET_FIELD_NUMBER: _ClassVar[int]
    OLD_SECCOMP_MODE_FIELD_NUMBER: _ClassVar[int]
    OLD_SECCOMP_FILTER_FIELD_NUMBER: _ClassVar[int]
    LOGINUID_FIELD_NUMBER: _ClassVar[int]
    OOM_SCORE_ADJ_FIELD_NUMBER: _ClassVar[int]
    STOP_SIGNO_FIELD_NUMBER: _ClassVar[int]
    task_state: int
    exit_code: int
    personality: int
    comm: bytes
    timers: TaskTimersEntry
    rlimits: TaskRlimitsEntry
    cg_set: int
    old_seccomp_mode: int
    old_seccomp_filter: int
    loginuid: int
    oom_score_adj: int
    stop_signo: int
    def __init__(self, task_state: _Optional[int] = ..., exit_code: _Optional[int] = ..., personality: _Optional[int] = ..., comm: _Optional[bytes] = ..., timers: _Optional[_Union[TaskTimersEntry, _Mapping]] = ..., rlimits: _Optional[_Union[TaskRlimitsEntry, _Mapping]] = ..., cg_set: _Optional[int] = ..., old_seccomp_mode: _Optional[int] = ..., old_seccomp_filter: _Optional[int] = ..., loginuid: _Optional[int] = ..., oom_score_adj: _Optional[int] = ..., stop_signo: _Optional[int] = ...) -> None: ...

class ThreadCoreEntry(_message.Message):
    __slots__ = ("sched_nice", "sched_policy", "sched_prio", "creds", "seccomp_mode", "seccomp_filter", "comm", "cg_set")
    SCHED_NICE_FIELD_NUMBER: _ClassVar[int]
    SCHED_POLICY_FIELD_NUMBER: _ClassVar[int]
    SCHED_PRIO_FIELD_NUMBER: _ClassVar[int]
    CREDS_FIELD_NUMBER: _ClassVar[int]
    SECCOMP_MODE_FIELD_NUMBER: _ClassVar[int]
    SECCOMP_FILTER_FIELD_NUMBER: _ClassVar[int]
    COMM_FIELD_NUMBER: _ClassVar[int]
    CG_SET_FIELD_NUMBER: _ClassVar[int]
    sched_nice: int
    sched_policy: int
    sched_prio: int
    creds: CredsEntry
    seccomp_mode: int
    seccomp_filter: int
    comm: bytes
    cg_set: int
    def __init__(self, sched_nice: _Optional[int] = ..., sched_policy: _Optional[int] = ..., sched_prio: _Optional[int] = ..., creds: _Optional[_Union[CredsEntry, _Mapping]] = ..., seccomp_mode: _Optional[int] = ..., seccomp_filter: _Optional[int] = ..., comm: _Optional[bytes] = ..., cg_set: _Optional[int] = ...) -> None: ...

class X86XsaveEntry(_message.Message):
    __slots__ = ("xstate_bv",)
    XSTATE_BV_FIELD_NUMBER: _ClassVar[int]
    xstate_bv: int
    def __init__(self, xstate_bv: _Optional[int] = ...) -> None: ...

class X86FpregsEntry(_message.Message):
    __slots__ = ("xsave",)
    XSAVE_FIELD_NUMBER: _ClassVar[int]
    xsave: X86XsaveEntry
    def __init__(self, xsave: _Optional[_Union[X86XsaveEntry, _Mapping]] = ...) -> None: ...

class X86ThreadEntry(_message.Message):
    __slots__ = ("fpregs",)
    FPREGS_FIELD_NUMBER: _ClassVar[int]
    fpregs: X86FpregsEntry
    def __init__(self, fpregs: _Optional[_Union[X86FpregsEntry, _Mapping]] = ...) -> None: ...

class CoreEntry(_message.Message):
    __slots__ = ("mtype", "thread_info", "tc", "ids", "thread_core")
    MTYPE_FIELD_NUMBER: _ClassVar[int]
    THREAD_INFO_FIELD_NUMBER: _ClassVar[int]
    TC_FIELD_NUMBER: _ClassVar[int]
    IDS_FIELD_NUMBER: _ClassVar[int]
    THREAD_CORE_FIELD_NUMBER: _ClassVar[int]
    mtype: int
    thread_info: X86ThreadEntry
    tc: TaskCoreEntry
    ids: TaskKobjIdsEntry
    thread_core: ThreadCoreEntry
    def __init__(self, mtype: _Optional[int] = ..., thread_info: _Optional[_Union[X86ThreadEntry, _Mapping]] = ..., tc: _Optional[_Union[TaskCoreEntry, _Mapping]] = ..., ids: _Optional[_Union[TaskKobjIdsEntry, _Mapping]] = ..., thread_core: _Optional[_Union[ThreadCoreEntry, _Mapping]] = ...) -> None: ...

class VmaEntry(_message.Message):
    __slots__ = ("start", "end", "pgoff", "shmid", "prot", "flags", "status", "fd")
    START_FIELD_NUMBER: _ClassVar[int]
    END_FIELD_NUMBER: _ClassVar[int]
    PGOFF_FIELD_NUMBER: _ClassVar[int]
    SHMID_FIELD_NUMBER: _ClassVar[int]
    PROT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    start: int
    end: int
    pgoff: int
    shmid: int
    prot: int
    flags: int
    status: int
    fd: int
    def __init__(self, start: _Optional[int] = ..., end: _Optional[int] = ..., pgoff: _Optional[int] = ..., shmid: _Optional[int] = ..., prot: _Optional[int] = ..., flags: _Optional[int] = ..., status: _Optional[int] = ..., fd: _Optional[int] = ...) -> None: ...

class MmEntry(_message.Message):
    __slots__ = ("mm_start_code", "mm_start_stack", "mm_start_brk", "mm_brk", "mm_arg_start", "mm_arg_end", "mm_env_start", "mm_env_end", "exe_file_id", "vmas")
    MM_START_CODE_FIELD_NUMBER: _ClassVar[int]
    MM_START_STACK_FIELD_NUMBER: _ClassVar[int]
    MM_START_BRK_FIELD_NUMBER: _ClassVar[int]
    MM_BRK_FIELD_NUMBER: _ClassVar[int]
    MM_ARG_START_FIELD_NUMBER: _ClassVar[int]
    MM_ARG_END_FIELD_NUMBER: _ClassVar[int]
    MM_ENV_START_FIELD_NUMBER: _ClassVar[int]
    MM_ENV_END_FIELD_NUMBER: _ClassVar[int]
    EXE_FILE_ID_FIELD_NUMBER: _ClassVar[int]
    VMAS_FIELD_NUMBER: _ClassVar[int]
    mm_start_code: int
    mm_start_stack: int
    mm_start_brk: int
    mm_brk: int
    mm_arg_start: int
    mm_arg_end: int
    mm_env_start: int
    mm_env_end: int
    exe_file_id: int
    vmas: _containers.RepeatedCompositeFieldContainer[VmaEntry]
    def __init__(self, mm_start_code: _Optional[int] = ..., mm_start_stack: _Optional[int] = ..., mm_start_brk: _Optional[int] = ..., mm_brk: _Optional[int] = ..., mm_arg_start: _Optional[int] = ..., mm_arg_end: _Optional[int] = ..., mm_env_start: _Optional[int] = ..., mm_env_end: _Optional[int] = ..., exe_file_id: _Optional[int] = ..., vmas: _Optional[_Iterable[_Union[VmaEntry, _Mapping]]] = ...) -> None: ...

class MmExecutable(_message.Message):
    __slots__ = ("exe_file_id",)
    EXE_FILE_ID_FIELD_NUMBER: _ClassVar[int]
    exe_file_id: int
    def __init__(self, exe_file_id: _Optional[int] = ...) -> None: ...

class PagemapHead(_message.Message):
    __slots__ = ("pages_id",)
    PAGES_ID_FIELD_NUMBER: _ClassVar[int]
    pages_id: int
    def __init__(self, pages_id: _Optional[int] = ...) -> None: ...

class PagemapEntry(_message.Message):
    __slots__ = ("vaddr", "compat_nr_pages", "in_parent", "flags", "nr_pages")
    VADDR_FIELD_NUMBER: _ClassVar[int]
    COMPAT_NR_PAGES_FIELD_NUMBER: _ClassVar[int]
    IN_PARENT_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    NR_PAGES_FIELD_NUMBER: _ClassVar[int]
    vaddr: int
    compat_nr_pages: int
    in_parent: bool
    flags: int
    nr_pages: int
    def __init__(self, vaddr: _Optional[int] = ..., compat_nr_pages: _Optional[int] = ..., in_parent: _Optional[bool] = ..., flags: _Optional[int] = ..., nr_pages: _Optional[int] = ...) -> None: ...

class MntEntry(_message.Message):
    __slots__ = ("fstype", "mnt_id", "root_dev", "parent_mnt_id", "flags", "root", "mountpoint", "source", "options", "shared_id", "master_id", "with_plugin", "ext_mount", "fsname", "internal_sharing", "deleted", "sb_flags", "ext_key")
    FSTYPE_FIELD_NUMBER: _ClassVar[int]
    MNT_ID_FIELD_NUMBER: _ClassVar[int]
    ROOT_DEV_FIELD_NUMBER: _ClassVar[int]
    PARENT_MNT_ID_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    ROOT_FIELD_NUMBER: _ClassVar[int]
    MOUNTPOINT_FIELD_NUMBER: _ClassVar[int]
    SOURCE_FIELD_NUMBER: _ClassVar[int]
    OPTIONS_FIELD_NUMBER: _ClassVar[int]
    SHARED_ID_FIELD_NUMBER: _ClassVar[int]
    MASTER_ID_FIELD_NUMBER: _ClassVar[int]
    WITH_PLUGIN_FIELD_NUMBER: _ClassVar[int]
    EXT_MOUNT_FIELD_NUMBER: _ClassVar[int]
    FSNAME_FIELD_NUMBER: _ClassVar[int]
    INTERNAL_SHARING_FIELD_NUMBER: _ClassVar[int]
    DELETED_FIELD_NUMBER: _ClassVar[int]
    SB_FLAGS_FIELD_NUMBER: _ClassVar[int]
    EXT_KEY_FIELD_NUMBER: _ClassVar[int]
    fstype: int
    mnt_id: int
    root_dev: int
    parent_mnt_id: int
    flags: int
    root: bytes
    mountpoint: bytes
    source: bytes
    options: bytes
    shared_id: int
    master_id: int
    with_plugin: bool
    ext_mount: bool
    fsname: bytes
    internal_sharing: bool
    deleted: bool
    sb_flags: int
    ext_key: bytes
    def __init__(self, fstype: _Optional[int] = ..., mnt_id: _Optional[int] = ..., root_dev: _Optional[int] = ..., parent_mnt_id: _Optional[int] = ..., flags: _Optional[int] = ..., root: _Optional[bytes] = ..., mountpoint: _Optional[bytes] = ..., source: _Optional[bytes] = ..., options: _Optional[bytes] = ..., shared_id: _Optional[int] = ..., master_id: _Optional[int] = ..., with_plugin: _Optional[bool] = ..., ext_mount: _Optional[bool] = ..., fsname: _Optional[bytes] = ..., internal_sharing: _Optional[bool] = ..., deleted: _Optional[bool] = ..., sb_flags: _Optional[int] = ..., ext_key: _Optional[bytes] = ...) -> None: ...

class FdinfoEntry(_message.Message):
    __slots__ = ("id", "flags", "type", "fd")
    ID_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    id: int
    flags: int
    type: int
    fd: int
    def __init__(self, id: _Optional[int] = ..., flags: _Optional[int] = ..., type: _Optional[int] = ..., fd: _Optional[int] = ...) -> None: ...

class FownEntry(_message.Message):
    __slots__ = ("uid", "euid", "signum", "pid_type", "pid")
    UID_FIELD_NUMBER: _ClassVar[int]
    EUID_FIELD_NUMBER: _ClassVar[int]
    SIGNUM_FIELD_NUMBER: _ClassVar[int]
    PID_TYPE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    uid: int
    euid: int
    signum: int
    pid_type: int
    pid: int
    def __init__(self, uid: _Optional[int] = ..., euid: _Optional[int] = ..., signum: _Optional[int] = ..., pid_type: _Optional[int] = ..., pid: _Optional[int] = ...) -> None: ...

class RegFileEntry(_message.Message):
    __slots__ = ("id", "flags", "pos", "fown", "name", "mnt_id", "size", "ext", "mode", "build_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    POS_FIELD_NUMBER: _ClassVar[int]
    FOWN_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    MNT_ID_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    EXT_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    BUILD_ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    flags: int
    pos: int
    fown: FownEntry
    name: bytes
    mnt_id: int
    size: int
    ext: bool
    mode: int
    build_id: _containers.RepeatedScalarFieldContainer[int]
    def __init__(self, id: _Optional[int] = ..., flags: _Optional[int] = ..., pos: _Optional[int] = ..., fown: _Optional[_Union[FownEntry, _Mapping]] = ..., name: _Optional[bytes] = ..., mnt_id: _Optional[int] = ..., size: _Optional[int] = ..., ext: _Optional[bool] = ..., mode: _Optional[int] = ..., build_id: _Optional[_Iterable[int]] = ...) -> None: ...

class InetSkEntry(_message.Message):
    __slots__ = ("id", "ino", "family", "type", "proto", "state", "src_port", "dst_port", "src_addr", "dst_addr", "fown", "opts")
    ID_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    FAMILY_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PROTO_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    SRC_PORT_FIELD_NUMBER: _ClassVar[int]
    DST_PORT_FIELD_NUMBER: _ClassVar[int]
    SRC_ADDR_FIELD_NUMBER: _ClassVar[int]
    DST_ADDR_FIELD_NUMBER: _ClassVar[int]
    FOWN_FIELD_NUMBER: _ClassVar[int]
    OPTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    ino: int
    family: int
    type: int
    proto: int
    state: int
    src_port: int
    dst_port: int
    src_addr: _containers.RepeatedScalarFieldContainer[int]
    dst_addr: _containers.RepeatedScalarFieldContainer[int]
    fown: FownEntry
    opts: SkOptsEntry
    def __init__(self, id: _Optional[int] = ..., ino: _Optional[int] = ..., family: _Optional[int] = ..., type: _Optional[int] = ..., proto: _Optional[int] = ..., state: _Optional[int] = ..., src_port: _Optional[int] = ..., dst_port: _Optional[int] = ..., src_addr: _Optional[_Iterable[int]] = ..., dst_addr: _Optional[_Iterable[int]] = ..., fown: _Optional[_Union[FownEntry, _Mapping]] = ..., opts: _Optional[_Union[SkOptsEntry, _Mapping]] = ...) -> None: ...

class SkOptsEntry(_message.Message):
    __slots__ = ("so_sndbuf", "so_rcvbuf", "so_priority", "so_mark")
    SO_SNDBUF_FIELD_NUMBER: _ClassVar[int]
    SO_RCVBUF_FIELD_NUMBER: _ClassVar[int]
    SO_PRIORITY_FIELD_NUMBER: _ClassVar[int]
    SO_MARK_FIELD_NUMBER: _ClassVar[int]
    so_sndbuf: int
    so_rcvbuf: int
    so_priority: int
    so_mark: int
    def __init__(self, so_sndbuf: _Optional[int] = ..., so_rcvbuf: _Optional[int] = ..., so_priority: _Optional[int] = ..., so_mark: _Optional[int] = ...) -> None: ...

class NsFileEntry(_message.Message):
    __slots__ = ("id", "ns_id", "ns_cflag")
    ID_FIELD_NUMBER: _ClassVar[int]
    NS_ID_FIELD_NUMBER: _ClassVar[int]
    NS_CFLAG_FIELD_NUMBER: _ClassVar[int]
    id: int
    ns_id: int
    ns_cflag: int
    def __init__(self, id: _Optional[int] = ..., ns_id: _Optional[int] = ..., ns_cflag: _Optional[int] = ...) -> None: ...

class PacketSockEntry(_message.Message):
    __slots__ = ("id", "type", "protocol", "fown", "opts")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    FOWN_FIELD_NUMBER: _ClassVar[int]
    OPTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    type: int
    protocol: int
    fown: FownEntry
    opts: SkOptsEntry
    def __init__(self, id: _Optional[int] = ..., type: _Optional[int] = ..., protocol: _Optional[int] = ..., fown: _Optional[_Union[FownEntry, _Mapping]] = ..., opts: _Optional[_Union[SkOptsEntry, _Mapping]] = ...) -> None: ...

class NetlinkSkEntry(_message.Message):
    __slots__ = ("id", "protocol", "groups", "dst_portid", "dst_group", "fown", "opts")
    ID_FIELD_NUMBER: _ClassVar[int]
    PROTOCOL_FIELD_NUMBER: _ClassVar[int]
    GROUPS_FIELD_NUMBER: _ClassVar[int]
    DST_PORTID_FIELD_NUMBER: _ClassVar[int]
    DST_GROUP_FIELD_NUMBER: _ClassVar[int]
    FOWN_FIELD_NUMBER: _ClassVar[int]
    OPTS_FIELD_NUMBER: _ClassVar[int]
    id: int
    protocol: int
    groups: _containers.RepeatedScalarFieldContainer[int]
    dst_portid: int
    dst_group: int
    fown: FownEntry
    opts: SkOptsEntry
    def __init__(self, id: _Optional[int] = ..., protocol: _Optional[int] = ..., groups: _Optional[_Iterable[int]] = ..., dst_portid: _Optional[int] = ..., dst_group: _Optional[int] = ..., fown: _Optional[_Union[FownEntry, _Mapping]] = ..., opts: _Optional[_Union[SkOptsEntry, _Mapping]] = ...) -> None: ...

class UnixSkEntry(_message.Message):
    __slots__ = ("id", "ino", "type", "state", "uflags", "peer", "fown", "opts", "name", "name_dir")
    ID_FIELD_NUMBER: _ClassVar[int]
    INO_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    UFLAGS_FIELD_NUMBER: _ClassVar[int]
    PEER_FIELD_NUMBER: _ClassVar[int]
    FOWN_FIELD_NUMBER: _ClassVar[int]
    OPTS_FIELD_NUMBER: _ClassVar[int]
    NAME_FIELD_NUMBER: _ClassVar[int]
    NAME_DIR_FIELD_NUMBER: _ClassVar[int]
    id: int
    ino: int
    type: int
    state: int
    uflags: int
    peer: int
    fown: FownEntry
    opts: SkOptsEntry
    name: bytes
    name_dir: bytes
    def __init__(self, id: _Optional[int] = ..., ino: _Optional[int] = ..., type: _Optional[int] = ..., state: _Optional[int] = ..., uflags: _Optional[int] = ..., peer: _Optional[int] = ..., fown: _Optional[_Union[FownEntry, _Mapping]] = ..., opts: _Optional[_Union[SkOptsEntry, _Mapping]] = ..., name: _Optional[bytes] = ..., name_dir: _Optional[bytes] = ...) -> None: ...

class PipeEntry(_message.Message):
    __slots__ = ("id", "pipe_id", "flags", "fown")
    ID_FIELD_NUMBER: _ClassVar[int]
    PIPE_ID_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    FOWN_FIELD_NUMBER: _ClassVar[int]
    id: int
    pipe_id: int
    flags: int
    fown: FownEntry
    def __init__(self, id: _Optional[int] = ..., pipe_id: _Optional[int] = ..., flags: _Optional[int] = ..., fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class FifoEntry(_message.Message):
    __slots__ = ("id", "pipe_id", "regf_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    PIPE_ID_FIELD_NUMBER: _ClassVar[int]
    REGF_ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    pipe_id: int
    regf_id: int
    def __init__(self, id: _Optional[int] = ..., pipe_id: _Optional[int] = ..., regf_id: _Optional[int] = ...) -> None: ...

class TtyFileEntry(_message.Message):
    __slots__ = ("id", "tty_info_id", "fown", "regf_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    TTY_INFO_ID_FIELD_NUMBER: _ClassVar[int]
    FOWN_FIELD_NUMBER: _ClassVar[int]
    REGF_ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    tty_info_id: int
    fown: FownEntry
    regf_id: int
    def __init__(self, id: _Optional[int] = ..., tty_info_id: _Optional[int] = ..., fown: _Optional[_Union[FownEntry, _Mapping]] = ..., regf_id: _Optional[int] = ...) -> None: ...

class TtyInfoEntry(_message.Message):
    __slots__ = ("id", "type", "rdev")
    ID_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    RDEV_FIELD_NUMBER: _ClassVar[int]
    id: int
    type: int
    rdev: int
    def __init__(self, id: _Optional[int] = ..., type: _Optional[int] = ..., rdev: _Optional[int] = ...) -> None: ...

class MemfdFileEntry(_message.Message):
    __slots__ = ("id", "fown", "inode_id")
    ID_FIELD_NUMBER: _ClassVar[int]
    FOWN_FIELD_NUMBER: _ClassVar[int]
    INODE_ID_FIELD_NUMBER: _ClassVar[int]
    id: int
    fown: FownEntry
    inode_id: int
    def __init__(self, id: _Optional[int] = ..., fown: _Optional[_Union[FownEntry, _Mapping]] = ..., inode_id: _Optional[int] = ...) -> None: ...

class MemfdInodeEntry(_message.Message):
    __slots__ = ("name", "size", "shmid", "inode_id")
    NAME_FIELD_NUMBER: _ClassVar[int]
    SIZE_FIELD_NUMBER: _ClassVar[int]
    SHMID_FIELD_NUMBER: _ClassVar[int]
    INODE_ID_FIELD_NUMBER: _ClassVar[int]
    name: bytes
    size: int
    shmid: int
    inode_id: int
    def __init__(self, name: _Optional[bytes] = ..., size: _Optional[int] = ..., shmid: _Optional[int] = ..., inode_id: _Optional[int] = ...) -> None: ...

class TunfileEntry(_message.Message):
    __slots__ = ("id", "netdev")
    ID_FIELD_NUMBER: _ClassVar[int]
    NETDEV_FIELD_NUMBER: _ClassVar[int]
    id: int
    netdev: bytes
    def __init__(self, id: _Optional[int] = ..., netdev: _Optional[bytes] = ...) -> None: ...

class EventfdFileEntry(_message.Message):
    __slots__ = ("fown",)
    FOWN_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class EventpollFileEntry(_message.Message):
    __slots__ = ("fown",)
    FOWN_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class SignalfdEntry(_message.Message):
    __slots__ = ("fown",)
    FOWN_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class TimerfdEntry(_message.Message):
    __slots__ = ("fown", "clockid")
    FOWN_FIELD_NUMBER: _ClassVar[int]
    CLOCKID_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    clockid: int
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ..., clockid: _Optional[int] = ...) -> None: ...

class InotifyFileEntry(_message.Message):
    __slots__ = ("fown",)
    FOWN_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class FanotifyFileEntry(_message.Message):
    __slots__ = ("fown",)
    FOWN_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class ExtFileEntry(_message.Message):
    __slots__ = ("fown",)
    FOWN_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class BpfmapFileEntry(_message.Message):
    __slots__ = ("fown",)
    FOWN_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class PidfdEntry(_message.Message):
    __slots__ = ("fown",)
    FOWN_FIELD_NUMBER: _ClassVar[int]
    fown: FownEntry
    def __init__(self, fown: _Optional[_Union[FownEntry, _Mapping]] = ...) -> None: ...

class FileEntry(_message.Message):
    __slots__ = ("type", "id", "reg", "isk", "nsf", "psk", "nlsk", "efd", "epfd", "sgfd", "tunf", "tfd", "ify", "ffy", "ext", "usk", "fifo", "pipe", "tty", "memfd", "bpf", "pidfd")
    TYPE_FIELD_NUMBER: _ClassVar[int]
    ID_FIELD_NUMBER: _ClassVar[int]
    REG_FIELD_NUMBER: _ClassVar[int]
    ISK_FIELD_NUMBER: _ClassVar[int]
    NSF_FIELD_NUMBER: _ClassVar[int]
    PSK_FIELD_NUMBER: _ClassVar[int]
    NLSK_FIELD_NUMBER: _ClassVar[int]
    EFD_FIELD_NUMBER: _ClassVar[int]
    EPFD_FIELD_NUMBER: _ClassVar[int]
    SGFD_FIELD_NUMBER: _ClassVar[int]
    TUNF_FIELD_NUMBER: _ClassVar[int]
    TFD_FIELD_NUMBER: _ClassVar[int]
    IFY_FIELD_NUMBER: _ClassVar[int]
    FFY_FIELD_NUMBER: _ClassVar[int]
    EXT_FIELD_NUMBER: _ClassVar[int]
    USK_FIELD_NUMBER: _ClassVar[int]
    FIFO_FIELD_NUMBER: _ClassVar[int]
    PIPE_FIELD_NUMBER: _ClassVar[int]
    TTY_FIELD_NUMBER: _ClassVar[int]
    MEMFD_FIELD_NUMBER: _ClassVar[int]
    BPF_FIELD_NUMBER: _ClassVar[int]
    PIDFD_FIELD_NUMBER: _ClassVar[int]
    type: int
    id: int
    reg: RegFileEntry
    isk: InetSkEntry
    nsf: NsFileEntry
    psk: PacketSockEntry
    nlsk: NetlinkSkEntry
    efd: EventfdFileEntry
    epfd: EventpollFileEntry
    sgfd: SignalfdEntry
    tunf: TunfileEntry
    tfd: TimerfdEntry
    ify: InotifyFileEntry
    ffy: FanotifyFileEntry
    ext: ExtFileEntry
    usk: UnixSkEntry
    fifo: FifoEntry
    pipe: PipeEntry
    tty: TtyFileEntry
    memfd: MemfdFileEntry
    bpf: BpfmapFileEntry
    pidfd: PidfdEntry
    def __init__(self, type: _Optional[int] = ..., id: _Optional[int] = ..., reg: _Optional[_Union[RegFileEntry, _Mapping]] = ..., isk: _Optional[_Union[InetSkEntry, _Mapping]] = ..., nsf: _Optional[_Union[NsFileEntry, _Mapping]] = ..., psk: _Optional[_Union[PacketSockEntry, _Mapping]] = ..., nlsk: _Optional[_Union[NetlinkSkEntry, _Mapping]] = ..., efd: _Optional[_Union[EventfdFileEntry, _Mapping]] = ..., epfd: _Optional[_Union[EventpollFileEntry, _Mapping]] = ..., sgfd: _Optional[_Union[SignalfdEntry, _Mapping]] = ..., tunf: _Optional[_Union[TunfileEntry, _Mapping]] = ..., tfd: _Optional[_Union[TimerfdEntry, _Mapping]] = ..., ify: _Optional[_Union[InotifyFileEntry, _Mapping]] = ..., ffy: _Optional[_Union[FanotifyFileEntry, _Mapping]] = ..., ext: _Optional[_Union[ExtFileEntry, _Mapping]] = ..., usk: _Optional[_Union[UnixSkEntry, _Mapping]] = ..., fifo: _Optional[_Union[FifoEntry, _Mapping]] = ..., pipe: _Optional[_Union[PipeEntry, _Mapping]] = ..., tty: _Optional[_Union[TtyFileEntry, _Mapping]] = ..., memfd: _Optional[_Union[MemfdFileEntry, _Mapping]] = ..., bpf: _Optional[_Union[BpfmapFileEntry, _Mapping]] = ..., pidfd: _Optional[_Union[PidfdEntry, _Mapping]] = ...) -> None: ...

class FsEntry(_message.Message):
    __slots__ = ("cwd_id", "root_id", "umask")
    CWD_ID_FIELD_NUMBER: _ClassVar[int]
    ROOT_ID_FIELD_NUMBER: _ClassVar[int]
    UMASK_FIELD_NUMBER: _ClassVar[int]
    cwd_id: int
    root_id: int
    umask: int
    def __init__(self, cwd_id: _Optional[int] = ..., root_id: _Optional[int] = ..., umask: _Optional[int] = ...) -> None: ...

class RemapFilePathEntry(_message.Message):
    __slots__ = ("orig_id", "remap_id", "remap_type")
    ORIG_ID_FIELD_NUMBER: _ClassVar[int]
    REMAP_ID_FIELD_NUMBER: _ClassVar[int]
    REMAP_TYPE_FIELD_NUMBER: _ClassVar[int]
    orig_id: int
    remap_id: int
    remap_type: int
    def __init__(self, orig_id: _Optional[int] = ..., remap_id: _Optional[int] = ..., remap_type: _Optional[int] = ...) -> None: ...

class GhostFileEntry(_message.Message):
    __slots__ = ("uid", "gid", "mode", "rdev")
    UID_FIELD_NUMBER: _ClassVar[int]
    GID_FIELD_NUMBER: _ClassVar[int]
    MODE_FIELD_NUMBER: _ClassVar[int]
    RDEV_FIELD_NUMBER: _ClassVar[int]
    uid: int
    gid: int
    mode: int
    rdev: int
    def __init__(self, uid: _Optional[int] = ..., gid: _Optional[int] = ..., mode: _Optional[int] = ..., rdev: _Optional[int] = ...) -> None: ...

class FileLockEntry(_message.Message):
    __slots__ = ("flag", "type", "pid", "fd")
    FLAG_FIELD_NUMBER: _ClassVar[int]
    TYPE_FIELD_NUMBER: _ClassVar[int]
    PID_FIELD_NUMBER: _ClassVar[int]
    FD_FIELD_NUMBER: _ClassVar[int]
    flag: int
    type: int
    pid: int
    fd: int
    def __init__(self, flag: _Optional[int] = ..., type: _Optional[int] = ..., pid: _Optional[int] = ..., fd: _Optional[int] = ...) -> None: ...

class UtsnsEntry(_message.Message):
    __slots__ = ("nodename", "domainname")
    NODENAME_FIELD_NUMBER: _ClassVar[int]
    DOMAINNAME_FIELD_NUMBER: _ClassVar[int]
    nodename: bytes
    domainname: bytes
    def __init__(self, nodename: _Optional[bytes] = ..., domainname: _Optional[bytes] = ...) -> None: ...

class IpcVarEntry(_message.Message):
    __slots__ = ("sem_ctls", "msg_ctlmax", "msg_ctlmnb", "msg_ctlmni", "auto_msgmni", "shm_ctlmax", "shm_ctlall", "shm_ctlmni", "shm_rmid_forced", "mq_queues_max", "mq_msg_max", "mq_msgsize_max", "mq_msg_default", "mq_msgsize_default")
    SEM_CTLS_FIELD_NUMBER: _ClassVar[int]
    MSG_CTLMAX_FIELD_NUMBER: _ClassVar[int]
    MSG_CTLMNB_FIELD_NUMBER: _ClassVar[int]
    MSG_CTLMNI_FIELD_NUMBER: _ClassVar[int]
    AUTO_MSGMNI_FIELD_NUMBER: _ClassVar[int]
    SHM_CTLMAX_FIELD_NUMBER: _ClassVar[int]
    SHM_CTLALL_FIELD_NUMBER: _ClassVar[int]
    SHM_CTLMNI_FIELD_NUMBER: _ClassVar[int]
    SHM_RMID_FORCED_FIELD_NUMBER: _ClassVar[int]
    MQ_QUEUES_MAX_FIELD_NUMBER: _ClassVar[int]
    MQ_MSG_MAX_FIELD_NUMBER: _ClassVar[int]
    MQ_MSGSIZE_MAX_FIELD_NUMBER: _ClassVar[int]
    MQ_MSG_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    MQ_MSGSIZE_DEFAULT_FIELD_NUMBER: _ClassVar[int]
    sem_ctls: _containers.RepeatedScalarFieldContainer[int]
    msg_ctlmax: int
    msg_ctlmnb: int
    msg_ctlmni: int
    auto_msgmni: int
    shm_ctlmax: int
    shm_ctlall: int
    shm_ctlmni: int
    shm_rmid_forced: int
    mq_queues_max: int
    mq_msg_max: int
    mq_msgsize_max: int
    mq_msg_default: int
    mq_msgsize_default: int
    def __init__(self, sem_ctls: _Optional[_Iterable[int]] = ..., msg_ctlmax: _Optional[int] = ..., msg_ctlmnb: _Optional[int] = ..., msg_ctlmni: _Optional[int] = ..., auto_msgmni: _Optional[int] = ..., shm_ctlmax: _Optional[int] = ..., shm_ctlall: _Optional[int] = ..., shm_ctlmni: _Optional[int] = ..., shm_rmid_forced: _Optional[int] = ..., mq_queues_max: _Optional[int] = ..., mq_msg_max: _Optional[int] = ..., mq_msgsize_max: _Optional[int] = ..., mq_msg_default: _Optional[int] = ..., mq_msgsize_default: _Optional[int] = ...) -> None: ...

class NetnsEntry(_message.Message):
    __slots__ = ("ext_key",)
    EXT_KEY_FIELD_NUMBER: _ClassVar[int]
    ext_key: bytes
    def __init__(self, ext_key: _Optional[bytes] = ...) -> None: ...

class SeccompFilter(_message.Message):
    __slots__ = ("filter", "prev", "flags")
    FILTER_FIELD_NUMBER: _ClassVar[int]
    PREV_FIELD_NUMBER: _ClassVar[int]
    FLAGS_FIELD_NUMBER: _ClassVar[int]
    filter: bytes
    prev: int
    flags: int
    def __init__(self, filter: _Optional[bytes] = ..., prev: _Optional[int] = ..., flags: _Optional[int] = ...) -> None: ...

class SeccompEntry(_message.Message):
    __slots__ = ("seccomp_filters",)
    SECCOMP_FILTERS_FIELD_NUMBER: _ClassVar[int]
    seccomp_filters: _containers.RepeatedCompositeFieldContainer[SeccompFilter]
    def __init__(self, seccomp_filters: _Optional[_Iterable[_Union[SeccompFilter, _Mapping]]] = ...) -> None: ...

class CpuinfoX86Entry(_message.Message):
    __slots__ = ("vendor_id", "cpu_family", "model", "capability_ver", "capability", "model_id", "xfeatures_mask", "xsave_size")
    VENDOR_ID_FIELD_NUMBER: _ClassVar[int]
    CPU_FAMILY_FIELD_NUMBER: _ClassVar[int]
    MODEL_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_VER_FIELD_NUMBER: _ClassVar[int]
    CAPABILITY_FIELD_NUMBER: _ClassVar[int]
    MODEL_ID_FIELD_NUMBER: _ClassVar[int]
    XFEATURES_MASK_FIELD_NUMBER: _ClassVar[int]
    XSAVE_SIZE_FIELD_NUMBER: _ClassVar[int]
    vendor_id: int
    cpu_family: int
    model: int
    capability_ver: int
    capability: _containers.RepeatedScalarFieldContainer[int]
    model_id: bytes
    xfeatures_mask: int
    xsave_size: int
    def __init__(self, vendor_id: _Optional[int] = ..., cpu_family: _Optional[int] = ..., model: _Optional[int] = ..., capability_ver: _Optional[int] = ..., capability: _Optional[_Iterable[int]] = ..., model_id: _Optional[bytes] = ..., xfeatures_mask: _Optional[int] = ..., xsave_size: _Optional[int] = ...) -> None: ...

class CpuinfoEntry(_message.Message):
    __slots__ = ("x86_entry",)
    X86_ENTRY_FIELD_NUMBER: _ClassVar[int]
    x86_entry: _containers.RepeatedCompositeFieldContainer[CpuinfoX86Entry]
    def __init__(self, x86_entry: _Optional[_Iterable[_Union[CpuinfoX86Entry, _Mapping]]] = ...) -> None: ...

class DumpStatsEntry(_message.Message):
    __slots__ = ("freezing_time", "frozen_time", "memdump_time", "memwrite_time", "pages_scanned", "pages_written")
    FREEZING_TIME_FIELD_NUMBER: _ClassVar[int]
    FROZEN_TIME_FIELD_NUMBER: _ClassVar[int]
    MEMDUMP_TIME_FIELD_NUMBER: _ClassVar[int]
    MEMWRITE_TIME_FIELD_NUMBER: _ClassVar[int]
    PAGES_SCANNED_FIELD_NUMBER: _ClassVar[int]
    PAGES_WRITTEN_FIELD_NUMBER: _ClassVar[int]
    freezing_time: int
    frozen_time: int
    memdump_time: int
    memwrite_time: int
    pages_scanned: int
    pages_written: int
    def __init__(self, freezing_time: _Optional[int] = ..., frozen_time: _Optional[int] = ..., memdump_time: _Optional[int] = ..., memwrite_time: _Optional[int] = ..., pages_scanned: _Optional[int] = ..., pages_written: _Optional[int] = ...) -> None: ...

class StatsEntry(_message.Message):
    __slots__ = ("dump",)
    DUMP_FIELD_NUMBER: _ClassVar[int]
    dump: DumpStatsEntry
    def __init__(self, dump: _Optional[_Union[DumpStatsEntry, _Mapping]] = ...) -> None: ...
