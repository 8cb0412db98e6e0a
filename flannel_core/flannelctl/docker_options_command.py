"""``flannelctl docker-options``: the subnet of this host as options of dockerd, in a file that systemd reads.

The same flags and the same file as Go flannel's mk-docker-opts.sh, but subnet.env is read, never executed.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from .. import subnet_env
from ..errors import EXIT_OK, FlannelError, UsageError
from ..state_file import write_atomically
from .agent_socket import DEFAULT_SUBNET_FILE
from .output import clean, complain

PREFIX = "DOCKER_OPT_"
ROUTES = Path("/proc/net/route")


def docker_options(
    *,
    subnet_file: Annotated[Path, Parameter(name=("--subnet-file", "-f"))] = DEFAULT_SUBNET_FILE,
    docker_file: Annotated[Path, Parameter(name=("--docker-file", "-d"))] = Path("/run/docker_opts.env"),
    individual: Annotated[bool, Parameter(name=("--individual", "-i"))] = False,
    combined: Annotated[bool, Parameter(name=("--combined", "-c"))] = False,
    no_ip_masq: Annotated[bool, Parameter(name=("--no-ip-masq", "-m"))] = False,
    key: Annotated[str, Parameter(name=("--key", "-k"))] = "DOCKER_OPTS",
) -> int:
    """Write dockerd's options for this host's subnet into a file of variables.

    Without -i and -c it holds both forms. Variables DOCKER_OPT_... and the one of --key that are set already go in
    front. Exit code 1, with the file written, if a route through another host has the subnet.

    Parameters
    ----------
    subnet_file
        What flanneld wrote.
    docker_file
        The file to write, for EnvironmentFile= of docker.service.
    individual
        One variable for each option: DOCKER_OPT_BIP, DOCKER_OPT_IPMASQ, DOCKER_OPT_MTU.
    combined
        All options in one variable.
    no_ip_masq
        Leave --ip-masq out, which a very old Docker does not know.
    key
        What the variable with all options is called.
    """
    if not re.fullmatch("[A-Za-z_][A-Za-z0-9_]*", key):
        raise UsageError(f"-k {key}: is no name of a variable")
    given = {name: value for name, value in os.environ.items() if name.startswith(PREFIX)}
    try:
        text = subnet_file.read_bytes()
        env = subnet_env.parse(text)
        given |= _options(subnet_env.variables(text), no_ip_masq=no_ip_masq)
    except FileNotFoundError:
        raise FlannelError(f"{subnet_file}: is not there; flanneld writes it as soon as it has a subnet") from None
    except OSError as error:
        raise FlannelError(f"{subnet_file}: cannot be read: {error.strerror or error}") from None
    except ValueError as error:
        raise FlannelError(f"{subnet_file}: {error}") from None
    lines = list(_lines(dict(sorted(given.items())), key, individual or not combined, combined or not individual))
    try:
        write_atomically(docker_file, "".join(f"{line}\n" for line in lines).encode())
    except OSError as error:
        raise FlannelError(f"{docker_file}: cannot be written: {error.strerror or error}") from None
    for subnet in env.subnets:
        if isinstance(subnet, IPv4Network) and (gateway := _gateway(subnet)):
            raise FlannelError(f"Your routing table already contains the subnet: {subnet} via {gateway}")
    return EXIT_OK


def _options(variables: dict[str, str], *, no_ip_masq: bool) -> dict[str, str]:
    """Raises ValueError."""
    options = {}
    if subnet := variables.get("FLANNEL_SUBNET"):
        options[f"{PREFIX}BIP"] = f"--bip={subnet}"
    else:
        complain("there is no FLANNEL_SUBNET: dockerd keeps its own IPv4 bridge")
    if mtu := variables.get("FLANNEL_MTU"):
        options[f"{PREFIX}MTU"] = f"--mtu={mtu}"
    if (masq := variables.get("FLANNEL_IPMASQ")) and not no_ip_masq:
        if masq not in ("true", "false"):
            raise ValueError(f"Invalid value of FLANNEL_IPMASQ: {clean(masq)}")
        # What flannel masquerades, Docker must not, and the other way round.
        options[f"{PREFIX}IPMASQ"] = f"--ip-masq={'false' if masq == 'true' else 'true'}"
    return options


def _lines(options: dict[str, str], key: str, individual: bool, combined: bool) -> Iterator[str]:
    if individual:
        yield from (f"{name}={_quoted(value)}" for name, value in options.items())
    if combined:
        before = f"{os.environ[key]} " if os.environ.get(key) else ""
        yield f"{key}={_quoted(before + ''.join(f' {value}' for value in options.values()))}"


def _quoted(text: str) -> str:
    """As both systemd and a shell take it (systemd.exec(5), EnvironmentFile=)."""
    return '"' + re.sub(r'(["\\$`])', r"\\\1", text) + '"'


def _gateway(subnet: IPv4Network) -> IPv4Address | None:
    """The gateway of a route to exactly this subnet, if there is one (proc(5): /proc/net/route)."""
    for line in ROUTES.read_text().splitlines()[1:]:
        _, destination, gateway, _, _, _, _, mask, *_ = line.split()
        if IPv4Network(f"{_address(destination)}/{_address(mask)}") == subnet and int(gateway, 16):
            return _address(gateway)
    return None


def _address(digits: str) -> IPv4Address:
    """Of a number that the kernel prints in the machine's order of bytes."""
    return IPv4Address(int(digits, 16).to_bytes(4, sys.byteorder))
