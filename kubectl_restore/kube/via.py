"""The two ways to a kubelet."""

from __future__ import annotations

import enum


class Via(enum.StrEnum):
    auto = "auto"
    apiserver = "apiserver"
    kubelet = "kubelet"
