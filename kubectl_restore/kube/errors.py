"""What can go wrong between kubectl-restore and a cluster, each as a RestoreError.

RestoreError
├── KubeconfigInvalid     the kubeconfig or a flag about the cluster is wrong
├── ApiRefused            the API server (or a kubelet) answered, and not with success
│   └── Forbidden         403; ``remedy`` is a manifest that grants what is missing
└── Unavailable           no answer
"""

from __future__ import annotations

from shared.errors import RestoreError


class KubeconfigInvalid(RestoreError):
    def __init__(self, sentence: str) -> None:
        super().__init__("KubeconfigInvalid", sentence)


class ApiRefused(RestoreError):
    """``status`` is the HTTP status, ``api_reason`` the reason in the answer's Status ("" when it was not one)."""

    remedy = ""
    """Text to print under the sentence: something to apply."""

    def __init__(self, sentence: str, *, status: int, api_reason: str = "", reason: str = "ApiRefused") -> None:
        super().__init__(reason, sentence)
        self.status = status
        self.api_reason = api_reason


class Forbidden(ApiRefused):
    def __init__(self, sentence: str, *, remedy: str = "", reason: str = "Forbidden") -> None:
        super().__init__(sentence, status=403, api_reason="Forbidden", reason=reason)
        self.remedy = remedy
