"""Runs in a container: has one object open of each kind that CRIU dumps, then prints numbers for ever.

Only the standard library, and no import beyond it: the file is copied into the image alone. An object that this kernel
or these rights do not give is left out, and said so on stderr.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import mmap
import os
import pty
import resource
import select
import signal
import socket
import struct
import sys
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

LIBC: Final = ctypes.CDLL(None, use_errno=True)
KEPT: Final[list[Any]] = []
"""Objects that stay open."""
SYS_IO_SETUP: Final = {"x86_64": 206, "aarch64": 0}
FOLDER: Final = "/tmp"
SLEEP: Final = ("/bin/busybox", ("sleep", "1000000"))
"""What most children are, for another Python's memory is 14 MB."""


def keeps(function: Callable[[], Any]) -> Callable[[], Any]:
    """Registers a function whose result stays."""
    OBJECTS.append(function)
    return function


OBJECTS: Final[list[Callable[[], Any]]] = []


def checked(result: int) -> int:
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def made(path: str, content: bytes = b"", flags: int = os.O_RDWR) -> int:
    """A descriptor of a file of the container, made where there is none."""
    file = os.open(path, flags | os.O_CREAT, 0o644)
    if content:
        os.write(file, content)
    return file


@keeps
def regular_files() -> Any:
    return (
        os.open("/etc/passwd", os.O_RDONLY),
        made(f"{FOLDER}/file", b"content\n" * 100),
        made(f"{FOLDER}/appended", b"x", os.O_WRONLY | os.O_APPEND),
        os.open("/", os.O_RDONLY | os.O_DIRECTORY),
        os.open("/etc", os.O_RDONLY | os.O_DIRECTORY | os.O_PATH),
    )


@keeps
def deleted_files() -> Any:
    """One with a hole, which CRIU writes in chunks."""
    found = []
    for name, content in (("deleted", b"ghost"), ("sparse", b"end")):
        found.append(made(f"{FOLDER}/{name}"))
        os.lseek(found[-1], 100_000 if name == "sparse" else 0, os.SEEK_SET)
        os.write(found[-1], content)
        Path(FOLDER, name).unlink()
    return found


@keeps
def volume_file() -> Any:
    return made("/write/file", b"of a volume")


@keeps
def device_files() -> Any:
    return os.open("/dev/null", os.O_RDWR), os.open("/dev/zero", os.O_RDONLY)


@keeps
def file_in_dev() -> Any:
    return made("/dev/own", b"in a tmpfs")


@keeps
def file_locks() -> Any:
    whole, part = made(f"{FOLDER}/locked"), made(f"{FOLDER}/locked-part")
    fcntl.flock(whole, fcntl.LOCK_EX)
    fcntl.lockf(part, fcntl.LOCK_EX, 10, 5)
    return whole, part


@keeps
def pipe_with_data() -> Any:
    reading, writing = os.pipe()
    os.write(writing, b"in a pipe")
    fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 8192)
    fcntl.fcntl(reading, fcntl.F_SETOWN, os.getpid())
    return reading, writing


@keeps
def fifo_with_data() -> Any:
    os.mkfifo(f"{FOLDER}/fifo")
    both = os.open(f"{FOLDER}/fifo", os.O_RDWR)
    os.write(both, b"in a fifo")
    return both


@keeps
def unix_pair_with_data() -> Any:
    """One packet has a descriptor with it, of a file that this process has open too."""
    one, other = socket.socketpair()
    one.sendall(b"queued")
    file = os.open("/etc/group", os.O_RDONLY)
    socket.send_fds(one, [b"with a file"], [file])
    return one, other, file


@keeps
def unix_sockets() -> Any:
    named = socket.socket(socket.AF_UNIX)
    named.bind(f"{FOLDER}/socket")
    named.listen(3)
    abstract = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    abstract.bind("\0sink")
    sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sender.connect("\0sink")
    sender.send(b"a datagram")
    return named, abstract, sender


@keeps
def listening_sockets() -> Any:
    made = []
    for family, port in ((socket.AF_INET, 7001), (socket.AF_INET6, 7002)):
        one = socket.socket(family)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        one.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 5))
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        one.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 77)
        one.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", port))
        one.listen(5)
        made.append(one)
    return made


@keeps
def connection() -> Any:
    listening = socket.create_server(("127.0.0.1", 7004))
    connected = socket.create_connection(("127.0.0.1", 7004))
    accepted, _ = listening.accept()
    connected.sendall(b"in the queue")
    return listening, connected, accepted


@keeps
def datagram_sockets() -> Any:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, 33)
    one.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 4)
    one.bind(("127.0.0.1", 7003))
    filtered = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    program = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0xFFFF))  # return everything
    attach = struct.pack("HxxxxxxP", 1, ctypes.addressof(program))
    filtered.setsockopt(socket.SOL_SOCKET, 26, attach)  # SO_ATTACH_FILTER
    filtered.connect(("127.0.0.1", 7003))
    return one, filtered


@keeps
def raw_socket() -> Any:
    return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)


@keeps
def packet_socket() -> Any:
    one = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    one.bind(("lo", 0))
    return one


@keeps
def netlink_socket() -> Any:
    one = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    one.bind((0, 1))
    return one


@keeps
def event_descriptors() -> Any:
    event = os.eventfd(7)
    poll = select.epoll()
    poll.register(event, select.EPOLLIN)
    timer = checked(LIBC.timerfd_create(time.CLOCK_MONOTONIC, 0))
    checked(LIBC.timerfd_settime(timer, 0, struct.pack("qqqq", 3, 0, 5000, 0), None))
    mask = ctypes.create_string_buffer(struct.pack("Q", 1 << (signal.SIGUSR2 - 1)), 128)
    signals = checked(LIBC.signalfd(-1, mask, 0))
    return event, poll, timer, signals


@keeps
def watches() -> Any:
    Path("/dev/watched").mkdir()
    watching = checked(LIBC.inotify_init1(0))
    checked(LIBC.inotify_add_watch(watching, b"/dev/watched", 0x300))
    return watching


@keeps
def marks() -> Any:
    """CAP_SYS_ADMIN only."""
    watching = checked(LIBC.fanotify_init(0, 0))
    checked(LIBC.fanotify_mark(watching, 1, ctypes.c_uint64(0x1), -100, b"/dev/watched"))
    return watching


@keeps
def memory_files() -> Any:
    one = os.memfd_create("kept", os.MFD_ALLOW_SEALING)
    os.ftruncate(one, 8192)
    fcntl.fcntl(one, 1033, 2)  # F_ADD_SEALS, F_SEAL_SHRINK
    shared = mmap.mmap(one, 8192)
    shared[0:4] = b"memo"
    anonymous = mmap.mmap(-1, 8192, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    anonymous[0:4] = b"anon"
    private = mmap.mmap(-1, 8192, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    private.madvise(mmap.MADV_DONTFORK)
    mapped = made(f"{FOLDER}/mapped", b"x" * 100)
    return one, shared, anonymous, private, mmap.mmap(mapped, 100)


@keeps
def system_v() -> Any:
    memory = checked(LIBC.shmget(0x51, 8192, 0o1600))
    LIBC.shmat.restype = ctypes.c_void_p
    address = LIBC.shmat(memory, None, 0)
    ctypes.memset(address, 7, 100)
    checked(LIBC.semget(0x52, 3, 0o1600))
    queue = checked(LIBC.msgget(0x53, 0o1600))
    checked(LIBC.msgsnd(queue, struct.pack("q8s", 1, b"a letter"), 8, 0))
    return None


@keeps
def timers() -> Any:
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 100_000, 50)
    # struct sigevent: value, signal, notify (SIGEV_SIGNAL)
    event = ctypes.create_string_buffer(struct.pack("QiI", 5, int(signal.SIGALRM), 0), 64)
    timer = ctypes.c_void_p()
    checked(LIBC.timer_create(time.CLOCK_MONOTONIC, event, ctypes.byref(timer)))
    until = ctypes.create_string_buffer(struct.pack("qqqq", 20, 0, 100_000, 5))
    checked(LIBC.timer_settime(timer, 0, until, None))
    return timer


@keeps
def terminals() -> Any:
    master, slave = pty.openpty()
    fcntl.ioctl(master, termios.TIOCSWINSZ, struct.pack("HHHH", 25, 80, 0, 0))
    os.write(slave, b"to the master")
    os.write(master, b"to the slave\n")
    return master, slave


@keeps
def children() -> Any:
    """A zombie, one in a session with a terminal of its own, one that ends with its parent."""
    if os.fork() == 0:
        os._exit(3)
    pid, master = pty.fork()
    if pid == 0:
        os.execv(*SLEEP)
    if os.fork() == 0:
        LIBC.prctl(1, int(signal.SIGTERM), 0, 0, 0)  # PR_SET_PDEATHSIG
        os.execv(*SLEEP)
    return pid, master


@keeps
def pidfd() -> Any:
    return os.pidfd_open(os.getpid())


@keeps
def file_of_ended_child() -> Any:
    pid = os.fork()
    if pid == 0:
        time.sleep(0.5)
        os._exit(0)
    file = os.open(f"/proc/{pid}/maps", os.O_RDONLY)
    os.waitpid(pid, 0)
    return file


@keeps
def pending_signals() -> Any:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1, signal.SIGUSR2])
    os.kill(os.getpid(), signal.SIGUSR1)
    signal.pthread_kill(threading.get_ident(), signal.SIGUSR2)


@keeps
def own_settings() -> Any:
    os.nice(1)
    LIBC.prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    LIBC.prctl(41, 1, 0, 0, 0)  # PR_SET_THP_DISABLE
    LIBC.prctl(15, b"sink", 0, 0, 0)  # PR_SET_NAME
    resource.setrlimit(resource.RLIMIT_NPROC, (1000, 2000))
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")
    os.umask(0o027)
    stack = ctypes.create_string_buffer(65536)
    own = struct.pack("PixxxxQ", ctypes.addressof(stack), 0, 65536)
    checked(LIBC.sigaltstack(own, None))
    os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    return stack


@keeps
def membarrier() -> Any:
    checked(LIBC.syscall(324 if os.uname().machine == "x86_64" else 283, 16, 0, 0))  # REGISTER_PRIVATE_EXPEDITED


@keeps
def asynchronous_io() -> Any:
    context = ctypes.c_ulong()
    checked(LIBC.syscall(SYS_IO_SETUP[os.uname().machine], 8, ctypes.byref(context)))
    return context


@keeps
def thread() -> Any:
    def sleep() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])
        while True:
            time.sleep(1000)

    started = threading.Thread(target=sleep, daemon=True)
    started.start()
    return started


def main() -> None:
    left_out = set(sys.argv[1:])
    for make in OBJECTS:
        if make.__name__ in left_out:
            continue
        try:
            KEPT.append(make())
        except OSError as error:
            print(f"no {make.__name__}: {errno.errorcode[error.errno or 0]}", file=sys.stderr, flush=True)
    number = 0
    while True:
        number += 1
        print(number, flush=True)
        time.sleep(0.1)


if __name__ == "__main__":
    main()
