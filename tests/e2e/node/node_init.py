"""PID 1 of a machine: says that it is ready, then reaps orphans until it is killed."""

import os
import signal

signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGCHLD})
os.write(1, b"ready\n")
nothing = os.open("/dev/null", os.O_RDWR)
for standard in (0, 1, 2):
    os.dup2(nothing, standard)
while True:
    try:
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
    except ChildProcessError:
        pass
    signal.sigwait({signal.SIGCHLD})
