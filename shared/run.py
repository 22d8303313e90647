"""The only place that starts child processes."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from shared.errors import CommandFailed, Unavailable


def run(
    argv: Sequence[str | Path],
    *,
    timeout_s: float,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    stdin: bytes | None = None,
    pass_fds: Sequence[int] = (),
) -> subprocess.CompletedProcess[str]:
    """Runs ``argv`` to its end, output captured as text.

    Raises CommandFailed for a non-zero exit (unless ``check`` is false) or a program that is missing or does not start
    (status 127 and 126, as a shell has them), Unavailable("CommandTimeout") when ``timeout_s`` seconds pass; the child
    is killed then.
    """
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=stdin,
            stdin=subprocess.DEVNULL if stdin is None else None,
            capture_output=True,
            timeout=timeout_s,
            env=env,
            pass_fds=pass_fds,
            check=False,
        )
    except FileNotFoundError as error:
        raise CommandFailed(words, 127, "", f"{words[0]}: no such program") from error
    except OSError as error:
        raise CommandFailed(words, 126, "", f"{words[0]} cannot be started: {error.strerror}") from error
    except subprocess.TimeoutExpired as error:
        raise Unavailable("CommandTimeout", f"{words[0]} took longer than {timeout_s:g} s and was stopped") from error
    result = subprocess.CompletedProcess(
        words, done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace")
    )
    if check and result.returncode:
        raise CommandFailed(words, result.returncode, result.stdout, result.stderr)
    return result
