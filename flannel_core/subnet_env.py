"""subnet.env: what the CNI plugin and other programs on this host know of the network. Written whole or not at all."""

from __future__ import annotations

import re
from ipaddress import ip_interface
from pathlib import Path

import msgspec

from .lease import IPNetwork
from .printable import printable
from .state_file import write_atomically

MAX_BYTES = 65536
"""The longest file that is read."""

_LINE = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_.]*)\s*=\s*(.*)")
_PREFIXES = {4: "FLANNEL_", 6: "FLANNEL_IPV6_"}


class SubnetEnv(msgspec.Struct, frozen=True):
    """The content of subnet.env: the networks and this host's subnets (one per family that is on, IPv4 first), the
    MTU of containers in bytes, and whether flannel masquerades.

    A file that another program wrote may lack some: then they are empty, 0 and False.
    """

    networks: tuple[IPNetwork, ...] = ()
    subnets: tuple[IPNetwork, ...] = ()
    mtu: int = 0
    ip_masq: bool = False


def render(env: SubnetEnv) -> bytes:
    """The file, in Go's order of lines. A subnet is told by its first usable address: ``10.5.43.1/24``."""
    lines = []
    for network, subnet in zip(env.networks, env.subnets, strict=True):
        prefix = _PREFIXES[network.version]
        lines += [f"{prefix}NETWORK={network}", f"{prefix}SUBNET={subnet.network_address + 1}/{subnet.prefixlen}"]
    lines += [f"FLANNEL_MTU={env.mtu}", f"FLANNEL_IPMASQ={'true' if env.ip_masq else 'false'}"]
    return "".join(f"{line}\n" for line in lines).encode()


def parse(text: bytes) -> SubnetEnv:
    """What a file says, by the rules of dotenv: quotes, comments and ``export`` are allowed.

    A list of subnets counts as none, as in Go. Raises ValueError with what is wrong, safe to print.
    """
    values = variables(text)
    networks: list[IPNetwork] = []
    subnets: list[IPNetwork] = []
    for prefix in _PREFIXES.values():
        networks += [_network(item) for item in values.get(f"{prefix}NETWORK", "").split(",") if item]
        given = values.get(f"{prefix}SUBNET", "")
        subnets += [_network(given)] if given and "," not in given else []
    mtu = values.get("FLANNEL_MTU", "0")
    if not re.fullmatch("[0-9]{1,9}", mtu):
        raise ValueError(f"FLANNEL_MTU is no number: '{printable(mtu)}'")
    return SubnetEnv(tuple(networks), tuple(subnets), int(mtu), values.get("FLANNEL_IPMASQ") == "true")


def variables(text: bytes) -> dict[str, str]:
    """Every variable of a file, by the same rules. Raises ValueError as :func:`parse` does."""
    try:
        lines = text.decode().splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start} is not UTF-8") from None
    values = {}
    for number, line in enumerate(map(str.strip, lines), 1):
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        value = found and _value(found[2])
        if found is None or value is None:
            raise ValueError(f"line {number} is not NAME=VALUE: '{printable(line)}'")
        values[found[1]] = value
    return values


def write(path: Path, env: SubnetEnv) -> None:
    """Put ``env`` at ``path``, mode 0644 in a directory made 0755. Raises OSError with the old file untouched."""
    write_atomically(path, render(env), 0o644, 0o755)


def read(path: Path) -> tuple[SubnetEnv | None, str]:
    """What stands at ``path``, or None and why. A file that is not there is no reason: ``(None, "")``."""
    try:
        if path.exists() and not path.is_file():
            return None, f"{path}: is not a file"
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
        if len(text) > MAX_BYTES:
            return None, f"{path}: is longer than {MAX_BYTES} bytes"
        return parse(text), ""
    except FileNotFoundError:
        return None, ""
    except OSError as error:
        return None, f"{path}: cannot be read ({error.strerror})"
    except ValueError as error:
        return None, f"{path}: {error}"


def _value(text: str) -> str | None:
    """Without its quotes and the comment after it; None for a quote that does not end."""
    if text[:1] in ("'", '"'):
        value, quote, _ = text[1:].partition(text[0])
        return value if quote else None
    return re.sub(r"(^|\s)#.*", "", text).strip()


def _network(text: str) -> IPNetwork:
    """The network around an address with a prefix length."""
    address, slash, length = text.strip().partition("/")
    try:
        if not slash or not re.fullmatch("[0-9]{1,3}", length) or "%" in address:
            raise ValueError
        return ip_interface(f"{address}/{length}").network
    except ValueError:
        raise ValueError(f"'{printable(text)}' is no address with a prefix length") from None
