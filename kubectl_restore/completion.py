"""What the shell offers on Tab: verbs and flags from their declarations, pods and containers from the cluster.

kubectl runs ``kubectl_complete-restore WORD… LAST`` and reads one choice a line, ``CHOICE[TAB DESCRIPTION]``, and at
the end ``:DIRECTIVE`` (k8s.io/kubectl pkg/util/completion/plugin_completion.go; cobra completions.go).
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from kubectl_restore.kube.connection import Connection

_LIMIT: Final = "5s"
_NO_SPACE, _NO_FILES = 2, 4
"""Cobra's ShellCompDirectiveNoSpace and …NoFileComp."""


def contexts(ctx: Any, incomplete: str) -> list[str]:
    from kubectl_restore.kube.kubeconfig import context_names

    return _starting(context_names(ctx.params.get("cluster__kubeconfig")), incomplete)


def namespaces(ctx: Any, incomplete: str) -> list[str]:
    def ask(connection: Connection) -> list[str]:
        from kubectl_restore.kube.connection import path_of

        return [each["metadata"]["name"] for each in connection.get(path_of("namespaces"))["items"]]

    return _asked(ctx, incomplete, ask)


def pods(ctx: Any, incomplete: str) -> list[str]:
    """Running pods, with ``pod/`` in front when that was typed."""
    kind, slash, _ = incomplete.rpartition("/")
    if slash and kind not in ("pod", "pods", "po"):
        return []

    def ask(connection: Connection) -> list[str]:
        from kubectl_restore.kube.connection import path_of

        running = connection.get(path_of("pods", connection.namespace), fieldSelector="status.phase=Running")
        return [kind + slash + each["metadata"]["name"] for each in running["items"]]

    return _asked(ctx, incomplete, ask)


def containers(ctx: Any, incomplete: str) -> list[str]:
    def ask(connection: Connection) -> list[str]:
        from kubectl_restore.kube.pods import containers, find_pod, pod_name

        # While the value of -c is missing the parser leaves the words before it unassigned.
        pod = ctx.params.get("pod") or next(iter(ctx.args), "")
        return containers(find_pod(connection, pod_name(pod)))

    return _asked(ctx, incomplete, ask)


def sources(ctx: Any, incomplete: str) -> list[str]:
    """``pod/…`` and ``node/…``; files are the shell's own business."""
    if incomplete.startswith("pod/"):
        return pods(ctx, incomplete)
    if incomplete.startswith("node/"):

        def ask(connection: Connection) -> list[str]:
            from kubectl_restore.kube.connection import path_of

            found = connection.get(path_of("nodes"))["items"]
            return [f"node/{each['metadata']['name']}:/var/lib/kubelet/checkpoints/" for each in found]

        return _asked(ctx, incomplete, ask)
    return _starting(["pod/", "node/"], incomplete) if incomplete else []


def _asked(ctx: Any, incomplete: str, ask: Callable[[Connection], list[str]]) -> list[str]:
    """What the cluster answers; nothing when it does not: a Tab is no place for errors."""
    from kubectl_restore.kube.connection import connect
    from kubectl_restore.kube.flags import ClusterFlags

    given = {
        name.removeprefix("cluster__"): value
        for name, value in ctx.params.items()
        if name.startswith("cluster__") and value is not None
    }
    try:
        return _starting(ask(connect(ClusterFlags(**{**given, "request_timeout": _LIMIT}))), incomplete)
    except Exception:
        return []


def _starting(choices: list[str], incomplete: str) -> list[str]:
    return sorted(each for each in choices if each.startswith(incomplete))


def main() -> None:
    """``kubectl_complete-restore``."""
    from typer.main import get_command

    from kubectl_restore.cli import application

    try:
        from typer._click.shell_completion import ShellComplete
    except ImportError:  # typer before 0.20 used click itself
        from click.shell_completion import ShellComplete  # type: ignore[assignment]

    class Choices(ShellComplete):
        """Only ``get_completions`` is used: kubectl has a protocol of its own."""

        name = "kubectl"
        source_template = ""

        def source_vars(self) -> dict[str, Any]:
            raise NotImplementedError

        def get_completion_args(self) -> tuple[list[str], str]:
            raise NotImplementedError

        def format_completion(self, item: Any) -> str:
            raise NotImplementedError

    *words, incomplete = sys.argv[1:] or [""]
    found = Choices(get_command(application()), {}, "kubectl restore", "").get_completions(words, incomplete)
    files = any(each.type in ("file", "dir") for each in found)
    for each in found:
        if each.type == "plain":
            print(f"{each.value}\t{each.help}" if each.help else each.value)
    unfinished = len(found) == 1 and found[0].value.endswith(("/", "="))
    print(f":{(0 if files else _NO_FILES) | (_NO_SPACE if unfinished else 0)}")
