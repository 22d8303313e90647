"""What of the node the images that CRIU gets depend on."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class NodeSide:
    """Facts of the node, or what is taken for them where no node is at hand."""

    kernel: str
    """Its release, as uname(2) says it."""
    cgroup2_options: str = ""
    """Of the cgroup2 mount, which one with others would change (linux kernel/cgroup/cgroup.c, cgroup_get_tree)."""
    hierarchies: tuple[str, ...] = ()
    """Of cgroups of version 1, as ``cpu,cpuacct`` or ``name=systemd``; another one would be made for the whole node."""
    inherited: tuple[tuple[str, int], ...] = ()
    """Destinations of volumes, and MS_RDONLY, MS_NOSUID, MS_NODEV and MS_NOEXEC of what they show, which a bind
    mount keeps that the pod gives no flags (mount(2), MS_BIND)."""
