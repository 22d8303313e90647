"""One errand at the API server: ``python -m nri_plugin.cluster``, request on stdin, answer on stdout."""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path

from nri_plugin.cluster.access import find
from nri_plugin.cluster.api import Api
from nri_plugin.cluster.errands import run_errand
from nri_plugin.config import Cluster
from shared.errors import RestoreError


def main() -> None:
    """``settings`` come with the request; an error of ours is an answer too: ``{"error": [reason, sentence]}``."""
    request = json.load(sys.stdin)
    kubeconfig, node = request["settings"]["kubeconfig"], request["settings"]["node"]
    settings = Cluster(Path(kubeconfig) if kubeconfig else None, node)
    try:
        with tempfile.TemporaryDirectory(prefix="nri-restore-") as folder:
            api = Api(find(settings, Path(folder)))
            answer = run_errand(request, api, node)
    except RestoreError as error:
        answer = {"error": [error.reason, error.sentence]}
    json.dump(answer, sys.stdout)


if __name__ == "__main__":
    main()
