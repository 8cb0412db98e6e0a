"""``flannelctl install-cni``: what a container runtime needs to find flannel."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import msgspec
from cyclopts import Parameter

from ..errors import EXIT_OK, FlannelError
from ..state_file import write_atomically
from .output import clean, complain, say

PLUGIN = "flannel"
CONFLIST_NAME = "10-flannel.conflist"
CONFLIST = b"""\
{
  "name": "cbr0",
  "cniVersion": "0.3.1",
  "plugins": [
    {
      "type": "flannel",
      "delegate": {
        "hairpinMode": true,
        "isDefaultGateway": true
      }
    },
    {
      "type": "portmap",
      "capabilities": {
        "portMappings": true
      }
    }
  ]
}
"""
"""What Go flannel's manifests install."""
WHERE_TO_GET_THEM = "https://github.com/containernetworking/plugins, or Debian's package containernetworking-plugins"
ANSWER_SECONDS = 10.0


class Plugin(msgspec.Struct, frozen=True):
    """An entry of a conflist, as far as it names programs."""

    type: Annotated[str, msgspec.Meta(pattern=r"\A[^/]+\Z")]
    delegate: dict[str, Any] = {}
    ipam: dict[str, Any] = {}


class Conflist(msgspec.Struct, frozen=True):
    """A list of network configurations, section 1 of the CNI specification."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-zA-Z0-9][a-zA-Z0-9_.\-]*\Z")]
    plugins: Annotated[list[Plugin], msgspec.Meta(min_length=1)]
    cniVersion: str = "0.1.0"


def built_program() -> Path:
    """Where ``make cni`` puts the plugin."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "flannel-cni" / PLUGIN


def install_cni(
    *,
    bin_dir: Path = Path("/opt/cni/bin"),
    conf_dir: Path = Path("/etc/cni/net.d"),
    conflist: Path | None = None,
    program: Annotated[Path | None, Parameter(env_var="FLANNEL_CNI_PROGRAM")] = None,
) -> int:
    """Install the CNI plugin and the configuration that makes a container runtime use it.

    Nothing is written unless everything is there: the plugin, which must run on this host, and the plugins that it
    and the configuration call. Each file appears whole or not at all, and one that is as it should be is not touched.

    Parameters
    ----------
    bin_dir
        Where the runtime looks for plugins. The others (bridge, host-local, portmap) must be there.
    conf_dir
        Where the runtime looks for configurations. 10-flannel.conflist is written there.
    conflist
        The configuration; without it that of Go flannel's manifests.
    program
        The plugin as one program; without it the one that `make cni` has built.
    """
    text, source = (CONFLIST, "the built-in configuration") if conflist is None else (_read(conflist), str(conflist))
    wanted = _conflist(text, source)
    plugin = program or built_program()
    image = _plugin(plugin, wanted.cniVersion)
    if missing := [name for name in _delegates(wanted, source) if not (bin_dir / name).is_file()]:
        raise FlannelError(
            f"{bin_dir} lacks {', '.join(missing)}, which {source} calls; install them first ({WHERE_TO_GET_THEM})"
        )
    _put(bin_dir / PLUGIN, image, 0o755)
    _put(conf_dir / CONFLIST_NAME, text, 0o644)
    for other in sorted(conf_dir.glob("*.conf*")):
        if other.name < CONFLIST_NAME and other.suffix in (".conf", ".conflist"):
            complain(f"{other} comes before {CONFLIST_NAME}: a container runtime takes the first that it finds")
    return EXIT_OK


def _conflist(text: bytes, source: str) -> Conflist:
    try:
        found = msgspec.json.decode(text, type=Conflist)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise FlannelError(f"{source}: is no CNI configuration list: {error}") from None
    if PLUGIN not in [plugin.type for plugin in found.plugins]:
        raise FlannelError(f"{source}: none of its plugins has the type '{PLUGIN}'")
    return found


def _delegates(conflist: Conflist, source: str) -> list[str]:
    """The programs that are called beside our own. Raises FlannelError."""
    found = list(dict.fromkeys(_called(conflist)))
    for name in found:
        if not isinstance(name, str) or not name or "/" in name:
            raise FlannelError(f"{source}: {name!r} is no type of a plugin")
    return [name for name in found if name != PLUGIN]


def _called(conflist: Conflist) -> Iterator[Any]:
    for plugin in conflist.plugins:
        yield plugin.type
        if plugin.type == PLUGIN:
            yield plugin.delegate.get("type", "bridge")
            yield plugin.ipam.get("type", "host-local")
        elif "type" in plugin.ipam:
            yield plugin.ipam["type"]


def _plugin(path: Path, version: str) -> bytes:
    """The program, which runs here and knows that version of the specification. Raises FlannelError."""
    if not path.exists():
        raise FlannelError(
            f"{path}: the CNI plugin is not there; `make cni` builds it, or `python3 -m flannel_cni.build FILE` under "
            "Debian's python3, and --program names one that was built elsewhere"
        )
    try:
        done = subprocess.run(
            [path], env={"CNI_COMMAND": "VERSION"}, capture_output=True, timeout=ANSWER_SECONDS, check=False
        )
        versions = msgspec.json.decode(done.stdout)["supportedVersions"]
    except (OSError, subprocess.TimeoutExpired) as error:
        raise FlannelError(f"{path}: does not run on this host: {error}") from None
    except (msgspec.MsgspecError, LookupError, TypeError):
        raise FlannelError(f"{path}: is no CNI plugin: it does not say what versions it supports") from None
    if version not in versions:
        raise FlannelError(f"{path}: does not support cniVersion {version}, only {', '.join(map(str, versions))}")
    return _read(path)


def _put(path: Path, content: bytes, mode: int) -> None:
    try:
        if path.is_file() and path.read_bytes() == content and path.stat().st_mode & 0o777 == mode:
            say(f"{clean(path)} is up to date")
            return
        write_atomically(path, content, mode)
    except OSError as error:
        raise FlannelError(f"{path}: cannot be written: {error.strerror or error}") from None
    say(f"wrote {clean(path)}")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise FlannelError(f"{path}: cannot be read: {error.strerror or error}") from None
