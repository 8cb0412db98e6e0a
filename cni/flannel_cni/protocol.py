"""What a container runtime says to a CNI plugin, and how it is answered: the CNI specification 1.1.0, sections 2 and 5.

Pure: the environment and the standard input come in as values. The order of the checks and the sentences are those of
Go's plugins (containernetworking/cni, pkg/skel), which runtimes and their users know.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

CURRENT = "1.1.0"
VERSIONS = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")

INCOMPATIBLE_VERSION = 1
INVALID_ENVIRONMENT = 4
IO_FAILURE = 5
DECODING_FAILURE = 6
INVALID_NETWORK_CONFIG = 7
INVALID_NETNS = 8
NOT_AVAILABLE = 50
"""STATUS: an ADD would fail. Containers that have their network keep it."""
INTERNAL = 999

NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.\-]*")
"""Container IDs and network names: no path separator, and nothing that begins with a dot."""
LONGEST_INTERFACE_NAME = 15
"""IFNAMSIZ of linux/if.h, without the byte that ends it."""

_CONTAINER = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")
REQUIRED = {
    "ADD": _CONTAINER,
    "CHECK": _CONTAINER,
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
"""The version of the specification that a command came with."""

Json = dict[str, Any]
"""An object of JSON."""


class CniError(Exception):
    """What the runtime gets instead of a result: one of the codes above, a sentence, and what may help with it."""

    def __init__(self, code: int, message: str, details: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details

    def encode(self) -> bytes:
        """The error object."""
        details = {"details": self.details} if self.details else {}
        return encode({"code": self.code, "msg": self.message, **details})


class Call(NamedTuple):
    """One call of the plugin. ``version`` is that of the configuration; VERSION has none of all but ``command``."""

    command: str
    config: Json
    container: str = ""
    interface: str = ""
    netns: str = ""
    netns_override: bool = False
    paths: tuple[str, ...] = ()

    @property
    def network(self) -> str:
        """The name of the network."""
        name: str = self.config["name"]
        return name

    @property
    def version(self) -> str:
        """The version of the specification that the answer has to be of."""
        return self.config.get("cniVersion") or "0.1.0"


def encode(value: object) -> bytes:
    """For a runtime to read, as Go's plugins write it."""
    return json.dumps(value, indent=4).encode()


def decode(text: bytes) -> Json:
    """An object of JSON. Raises ValueError with what is wrong."""
    try:
        value = json.loads(text.decode(), parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    if not isinstance(value, dict):
        raise ValueError(f"it is {kind(value)}, not an object")
    return value


def kind(value: object) -> str:
    """What to call a value of JSON."""
    names = {dict: "an object", list: "a list", str: "a string", bool: "a boolean", int: "a number", float: "a number"}
    return names.get(type(value), "null")


def parse_call(environment: Mapping[str, str], read: Callable[[], bytes]) -> Call:
    """``read`` gives the standard input, if it comes to that. Raises CniError."""
    command = environment.get("CNI_COMMAND", "")
    required = ("CNI_COMMAND", *REQUIRED.get(command, ()))
    if (container := environment.get("CNI_CONTAINERID", "")) and "CNI_CONTAINERID" in required:
        _check_container(container)
    if (interface := environment.get("CNI_IFNAME", "")) and "CNI_IFNAME" in required:
        _check_interface(interface)
    if missing := [name for name in required if not environment.get(name)]:
        raise CniError(INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing")
    if command == "VERSION":
        return Call(command, {})
    config = _config(read())
    if command not in REQUIRED:
        raise CniError(INVALID_ENVIRONMENT, f"unknown CNI_COMMAND: {command}")
    call = Call(
        command,
        config,
        container,
        interface,
        environment.get("CNI_NETNS", ""),
        environment.get("CNI_NETNS_OVERRIDE", "").upper() in ("1", "TRUE"),
        tuple(filter(None, environment["CNI_PATH"].split(":"))),
    )
    _check_version(call)
    return call


def _no_constant(word: str) -> None:
    raise ValueError(f"{word} is no JSON")


def _config(stdin: bytes) -> Json:
    try:
        config = decode(stdin)
    except ValueError as error:
        raise CniError(DECODING_FAILURE, f"error unmarshall network config: {error}") from None
    for key in ("name", "cniVersion"):
        if not isinstance(value := config.get(key) or "", str):
            raise CniError(DECODING_FAILURE, f"error unmarshall network config: '{key}' is {kind(value)}, not a string")
    if not (name := config.get("name")):
        raise CniError(INVALID_NETWORK_CONFIG, "missing network name")
    if not NAME.fullmatch(name):
        raise CniError(INVALID_NETWORK_CONFIG, "invalid characters found in network name", name)
    return config


def _check_container(container: str) -> None:
    if not NAME.fullmatch(container):
        raise CniError(INVALID_ENVIRONMENT, "invalid characters in containerID", container)


def _check_interface(name: str) -> None:
    if len(name) > LONGEST_INTERFACE_NAME:
        raise CniError(
            INVALID_ENVIRONMENT,
            "interface name is too long",
            f"interface name should be less than {LONGEST_INTERFACE_NAME + 1} characters",
        )
    if name in (".", ".."):
        raise CniError(INVALID_ENVIRONMENT, "interface name is . or ..")
    if any(c in "/:" or c.isspace() for c in name):
        raise CniError(INVALID_ENVIRONMENT, "interface name contains / or : or whitespace characters")


def _check_version(call: Call) -> None:
    if call.version not in VERSIONS:
        supported = " ".join(f'"{version}"' for version in VERSIONS)
        details = f'config is "{call.version}", plugin supports [{supported}]'
        raise CniError(INCOMPATIBLE_VERSION, "incompatible CNI versions", details)
    since = SINCE.get(call.command, VERSIONS[0])
    if VERSIONS.index(call.version) < VERSIONS.index(since):
        raise CniError(INCOMPATIBLE_VERSION, f"config version does not allow {call.command}")
