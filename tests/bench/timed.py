"""Runs inside a test node, with its own Python and nothing else: times programs where they run.

``timed.py ROUNDS ARGV… [-- ARGV…]`` runs each program ROUNDS times, taking turns, and prints one line of seconds for
each program. A program's output goes into a pipe that stays open until all are done: what ``runc restore`` leaves
behind holds it.
"""

import os
import random
import sys
import time


def run(argv: list[str], output: int) -> float:
    """Seconds from starting a program to its end; exits when it fails."""
    nothing = os.open("/dev/null", os.O_RDONLY)
    actions = [(os.POSIX_SPAWN_DUP2, source, target) for source, target in ((nothing, 0), (output, 1), (output, 2))]
    began = time.perf_counter()
    child = os.posix_spawnp(argv[0], argv, os.environ, file_actions=actions)
    _, status = os.waitpid(child, 0)
    spent = time.perf_counter() - began
    os.close(nothing)
    if status:
        sys.exit(f"{argv[0]} failed with {os.waitstatus_to_exitcode(status)}")
    return spent


def main() -> None:
    rounds, words = int(sys.argv[1]), sys.argv[2:]
    programs: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            programs.append([])
        else:
            programs[-1].append(word)
    times: list[list[float]] = [[] for _ in programs]
    for _ in range(rounds):
        reading, writing = os.pipe()
        for each in random.sample(range(len(programs)), len(programs)):
            times[each].append(run(programs[each], writing))
        os.close(writing)
        os.close(reading)
    for figures in times:
        print(*(f"{figure:.7f}" for figure in figures))


main()
