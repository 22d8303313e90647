"""containerd's config.toml for each flavour: what an administrator would write, and what a machine like this needs."""

from __future__ import annotations

from typing import Final

from shared.contract import HANDLER
from tests.e2e.node.roots import Flavour

MAIN: Final = "/etc/containerd/config.toml"
PAUSE: Final = "nri-restore.test/pause:1"
WRAPPER: Final = "/usr/local/bin/restore-runc"
CERTIFICATES: Final = "/etc/containerd/certs.d"
NRI_SOCKET: Final = "/var/run/nri/nri.sock"
CNI_PLUGINS: Final = "/usr/lib/cni"
CNI_CONFIGURATION: Final = "/etc/cni/net.d"

# restrict_oom_score_adj: without CAP_SYS_RESOURCE a sandbox's lower score is refused and takes `runc create` with it.
_VERSION_2: Final = f"""\
version = 2
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "{PAUSE}"
  restrict_oom_score_adj = true
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "{CNI_PLUGINS}"
    conf_dir = "{CNI_CONFIGURATION}"
  [plugins."io.containerd.grpc.v1.cri".registry]
    config_path = "{CERTIFICATES}"
  [plugins."io.containerd.grpc.v1.cri".containerd]
    default_runtime_name = "runc"
{{handlers}}
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  socket_path = "{NRI_SOCKET}"
"""

_VERSION_3: Final = f"""\
version = 3
[plugins."io.containerd.cri.v1.images"]
  [plugins."io.containerd.cri.v1.images".pinned_images]
    sandbox = "{PAUSE}"
  [plugins."io.containerd.cri.v1.images".registry]
    config_path = "{CERTIFICATES}"
[plugins."io.containerd.cri.v1.runtime"]
  restrict_oom_score_adj = true
  [plugins."io.containerd.cri.v1.runtime".cni]
    bin_dirs = ["{CNI_PLUGINS}"]
    conf_dir = "{CNI_CONFIGURATION}"
  [plugins."io.containerd.cri.v1.runtime".containerd]
    default_runtime_name = "runc"
{{handlers}}
[plugins."io.containerd.nri.v1.nri"]
  disable = false
  socket_path = "{NRI_SOCKET}"
"""


CRI: Final[dict[Flavour, str]] = {
    "containerd-1.7": "io.containerd.grpc.v1.cri",
    "containerd-2.1": "io.containerd.cri.v1.runtime",
}
"""What the CRI plugin's section is called."""


def configuration(flavour: Flavour) -> str:
    """The whole file; handlers ``runc``, ``crun`` (both plain) and nri-restore, which runs our wrapper."""
    text, plugin = {"containerd-1.7": _VERSION_2, "containerd-2.1": _VERSION_3}[flavour], CRI[flavour]
    handlers = ""
    for name, binary in (("runc", ""), ("crun", "/usr/bin/crun"), (HANDLER, WRAPPER)):
        table = f'[plugins."{plugin}".containerd.runtimes.{name}'
        handlers += f'    {table}]\n      runtime_type = "io.containerd.runc.v2"\n'
        if name == HANDLER:
            handlers += f'      pod_annotations = ["{HANDLER}/*"]\n'
        if binary:
            handlers += f'      {table}.options]\n        BinaryName = "{binary}"\n'
    return text.format(handlers=handlers)


def unconfigured(flavour: Flavour) -> str:
    """The file as it is before anybody heard of us: no handler of ours, NRI off."""
    before, _, rest = configuration(flavour).partition(f'    [plugins."{CRI[flavour]}".containerd.runtimes.{HANDLER}]')
    assert rest
    after = rest.partition('[plugins."io.containerd.nri.v1.nri"]')[2].replace("disable = false", "disable = true")
    return f'# an administrator\'s comment\n{before}[plugins."io.containerd.nri.v1.nri"]{after}'


CNI_NETWORK: Final = """\
{
  "cniVersion": "1.0.0",
  "name": "pods",
  "plugins": [
    {
      "type": "bridge",
      "bridge": "cni0",
      "isGateway": true,
      "ipMasq": true,
      "ipam": {
        "type": "host-local",
        "ranges": [[{"subnet": "10.88.0.0/16"}]],
        "routes": [{"dst": "0.0.0.0/0"}]
      }
    },
    {"type": "portmap", "capabilities": {"portMappings": true}}
  ]
}
"""
