"""net-conf.json -> NetworkConfig. The keys, defaults and ranges are listed in docs/reference/net-conf.md."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Any, NamedTuple, NoReturn

import msgspec

from .config_errors import ConfigError as ConfigError
from .config_errors import ConfigInvalid as ConfigInvalid
from .config_errors import json_kind, shown
from .lease import FAMILIES, Family, IPAddress, IPNetwork
from .printable import printable

MAX_CONFIG_BYTES = 1 << 20
"""The longest net-conf.json that is read."""
DEFAULT_BACKEND = "udp"
"""What Go flannel runs where "Backend" is left out (its documentation says vxlan and is wrong)."""


class Space(msgspec.Struct, frozen=True):
    """One family's address space: hosts get subnets of ``subnet_length`` out of ``network``, the first at
    ``subnet_min``, the last at ``subnet_max`` (both are the first address of a subnet)."""

    network: IPNetwork
    subnet_length: int
    subnet_min: IPAddress
    subnet_max: IPAddress

    @property
    def capacity(self) -> int:
        """How many subnets there are to lease."""
        step = 1 << (self.network.max_prefixlen - self.subnet_length)
        return max(0, (int(self.subnet_max) - int(self.subnet_min)) // step + 1)


class NetworkConfig(msgspec.Struct, frozen=True):
    """A valid net-conf.json. A family that is switched off is None; at least one is not.

    ``backend_type`` is in lower case; ``backend`` holds the other keys of "Backend" as they were written (nulls
    dropped), for ``backend_options``.
    """

    ipv4: Space | None
    ipv6: Space | None
    backend_type: str
    backend: Mapping[str, Any]
    enable_nftables: bool = False

    def space(self, family: Family) -> Space | None:
        return self.ipv4 if family == 4 else self.ipv6

    @property
    def networks(self) -> tuple[IPv4Network | IPv6Network, ...]:
        return tuple(s.network for s in (self.ipv4, self.ipv6) if s is not None)

    def holds(self, subnets: Collection[IPNetwork]) -> bool:
        """True if each of ``subnets`` is a part of the Network of its family."""
        return all(any(subnet.network_address in network for network in self.networks) for subnet in subnets)

    @property
    def families(self) -> tuple[Family, ...]:
        """Those that are on."""
        return tuple(family for family in FAMILIES if self.space(family) is not None)

    def only(self, families: Collection[Family]) -> NetworkConfig:
        """This configuration with the other families off."""
        ipv4, ipv6 = (self.space(family) if family in families else None for family in FAMILIES)
        return msgspec.structs.replace(self, ipv4=ipv4, ipv6=ipv6)


def parse_config(text: bytes, source: str, *, ranges: bool = True) -> NetworkConfig:
    """The configuration that ``text`` holds; ``source`` names it in errors (a path, a store's key).

    ``ranges`` False checks no more than that the values can be read: what Go does where Kubernetes hands out the
    subnets, and SubnetLen, SubnetMin and SubnetMax mean nothing. Raises ConfigInvalid with all that is wrong.
    """
    reader = _Reader(text, source)
    config = reader.config(ranges)
    if config is None or reader.errors:
        raise ConfigInvalid(tuple(reader.errors))
    return config


def check_config(text: bytes, source: str) -> list[ConfigError]:
    """Everything that is wrong with ``text``, except in its backend's own keys: those ``decode_options`` checks."""
    reader = _Reader(text, source)
    reader.config(ranges=True)
    return reader.errors


def describe_change(old: NetworkConfig, new: NetworkConfig) -> list[str]:
    """One line per key that differs, ``SubnetLen: 24 -> 26``, for the log. Secrets are not shown."""
    before, after = _flat(old), _flat(new)
    lines = []
    for folded, (key, _) in (before | after).items():
        was, becomes = (flat.get(folded, (key, None))[1] for flat in (before, after))
        if was != becomes:
            lines.append(f"{key}: {_told(key, was)} -> {_told(key, becomes)}")
    return lines


def _flat(config: NetworkConfig) -> dict[str, tuple[str, Any]]:
    """Folded key -> the key as written, and its value. A key written in another case is the same key."""
    flat: dict[str, Any] = {"EnableIPv4": config.ipv4 is not None, "EnableIPv6": config.ipv6 is not None}
    for prefix, space in (("", config.ipv4), ("IPv6", config.ipv6)):
        if space is not None:
            flat[f"{prefix}Network"] = str(space.network)
            flat[f"{prefix}SubnetLen"] = space.subnet_length
            flat[f"{prefix}SubnetMin"] = str(space.subnet_min)
            flat[f"{prefix}SubnetMax"] = str(space.subnet_max)
    flat |= {"EnableNFTables": config.enable_nftables, "Backend.Type": config.backend_type}
    flat |= {f"Backend.{key}": value for key, value in config.backend.items()}
    return {key.casefold(): (key, value) for key, value in flat.items()}


def _told(key: str, value: Any) -> str:
    return "left out" if value is None else shown(key, value)


class _Rules(NamedTuple):
    """What differs between the families, as in Go's CheckNetworkConfig."""

    prefix: str
    """Of the keys: "" or "IPv6"."""
    address: type[IPv4Address] | type[IPv6Address]
    network: type[IPv4Network] | type[IPv6Network]
    usual_length: int
    """SubnetLen where it is left out and Network holds at least four such subnets."""
    longest: int
    """The longest SubnetLen: a host needs addresses for a tunnel and a bridge."""
    too_small: str
    example: str


_IPV4 = _Rules("", IPv4Address, IPv4Network, 24, 30, "network is too small", "10.5.0.0/16")
_IPV6 = _Rules("IPv6", IPv6Address, IPv6Network, 64, 126, "IPv6Network is too small", "fd00:5::/48")


class _Reader:
    """Reads one text, and goes on after an error to find the others."""

    def __init__(self, text: bytes, source: str) -> None:
        self.errors: list[ConfigError] = []
        self._source = source
        self._keys = self._load(text)

    def config(self, ranges: bool) -> NetworkConfig | None:
        """None, or a configuration that holds only if ``errors`` is empty."""
        if self._keys is None:
            return None
        ipv4_on, ipv6_on = self._bool("EnableIPv4", True), self._bool("EnableIPv6", False)
        if not ipv4_on and not ipv6_on:
            cure = 'leave EnableIPv4 out, or write "EnableIPv6": true and an IPv6Network'
            self._wrong("EnableIPv4", "none defined stack", cure)
        ipv4, ipv6 = self._space(_IPV4, ipv4_on, ranges), self._space(_IPV6, ipv6_on, ranges)
        backend_type, backend = self._backend()
        return NetworkConfig(ipv4, ipv6, backend_type, backend, self._bool("EnableNFTables", False))

    def _load(self, text: bytes) -> dict[str, Any] | None:
        """The top-level keys, folded."""
        try:
            if len(text) > MAX_CONFIG_BYTES:
                raise ValueError(f"{len(text)} bytes, more than the {MAX_CONFIG_BYTES} that a configuration may have")
            tree = json.loads(
                text.decode(), object_pairs_hook=_last_wins, parse_int=_integer, parse_constant=_no_constant
            )
        except UnicodeDecodeError as error:
            reason = f"byte {error.start} is not UTF-8"
        except RecursionError:
            reason = "nested too deep"
        except json.JSONDecodeError as error:
            reason = f"not JSON at line {error.lineno}, column {error.colno}: {error.msg}"
            if error.pos >= len(error.doc.rstrip()) or error.msg.startswith("Unterminated"):
                reason = "unexpected end of JSON input"
        except ValueError as error:
            reason = printable(str(error), 120)
        else:
            if tree is None or isinstance(tree, dict):
                return {key.casefold(): value for key, value in (tree or {}).items()}
            reason = f"json: cannot unmarshal {json_kind(tree)} into Go value of type subnet.Config"
        cure = f'write JSON such as {{"Network": "{_IPV4.example}", "Backend": {{"Type": "vxlan"}}}}'
        self.errors.append(ConfigError(self._source, "", "", reason, cure))
        return None

    def _value(self, key: str) -> Any:
        """None where the key is left out or null, which keeps the default."""
        return (self._keys or {}).get(key.casefold())

    def _wrong(self, key: str, reason: str, cure: str, value: Any = None) -> None:
        value = self._value(key) if value is None else value
        self.errors.append(ConfigError(self._source, key, "" if value is None else shown(key, value), reason, cure))

    def _mismatch(self, key: str, go_type: str, cure: str) -> None:
        """Go's sentence for a value of the wrong JSON type."""
        value = self._value(key)
        kind = json_kind(value)
        if kind == "number" and go_type == "uint":
            kind += f" {shown(key, value)}"
        self._wrong(key, f"json: cannot unmarshal {kind} into Go struct field Config.{key} of type {go_type}", cure)

    def _bool(self, key: str, default: bool) -> bool:
        value = self._value(key)
        if isinstance(value, bool):
            return value
        if value is not None:
            self._mismatch(key, "bool", "write true or false")
        return default

    def _length(self, key: str, rules: _Rules) -> int | None:
        """0 where it is left out, None where it is wrong."""
        value = self._value(key)
        if value is None:
            return 0
        if type(value) is int and 0 <= value < 1 << 64:
            return value
        self._mismatch(key, "uint", f"write an integer such as {rules.usual_length}, or leave it out")
        return None

    def _network(self, key: str, rules: _Rules) -> IPNetwork | None:
        """None where it is left out or wrong. Host bits are masked without a word, as Go does."""
        value = self._value(key)
        if value is None:
            return None
        text = value if isinstance(value, str) else shown(key, value)
        address, _, length = text.partition("/")
        found: IPNetwork | None = None
        try:
            if "%" not in address and length.isascii() and length.isdigit():
                found = (IPv6Network if ":" in address else IPv4Network)((address, int(length)), strict=False)
        except ValueError:
            pass
        if isinstance(found, rules.network) and not _looks_like_ipv4(found):
            return found
        reason = f"invalid CIDR address: {printable(text, 60)}"
        if found is not None:
            reason = f"invalid {'IPv4' if rules is _IPV4 else 'IPv6'} CIDR format"
        self._wrong(key, reason, f'write an address and a length such as "{rules.example}"')
        return None

    def _address(self, key: str, rules: _Rules) -> IPAddress | None:
        """None where it is left out, unspecified (which Go takes for left out) or wrong."""
        value = self._value(key)
        if value is None:
            return None
        text = value if isinstance(value, str) else ""
        try:
            found = None if "%" in text else (IPv6Address if ":" in text else IPv4Address)(text)
        except ValueError:
            found = None
        if isinstance(found, rules.address):
            return None if found.is_unspecified else found
        reason = "invalid IPv4 address format" if isinstance(found, IPv6Address) else "invalid IP address format"
        self._wrong(key, reason, f"write the first address of a subnet inside {rules.prefix}Network, or leave it out")
        return None

    def _space(self, rules: _Rules, enabled: bool, ranges: bool) -> Space | None:
        network_key, length_key, min_key, max_key = (
            f"{rules.prefix}{name}" for name in ("Network", "SubnetLen", "SubnetMin", "SubnetMax")
        )
        known = len(self.errors)
        network = self._network(network_key, rules)
        absent = network is None and len(self.errors) == known
        length = self._length(length_key, rules)
        low, high = self._address(min_key, rules), self._address(max_key, rules)
        if not enabled:
            return None
        if absent or (network is not None and network.prefixlen == 0):
            off = "EnableIPv4" if rules is _IPV4 else "EnableIPv6"
            reason = f"please define a correct {network_key} parameter in the flannel config"
            self._wrong(network_key, reason, f'write "{network_key}": "{rules.example}", or "{off}": false')
            return None
        if network is None or length is None:
            return None
        if ranges:
            length = self._checked_length(length_key, length, network, rules)
            if length is None:
                return None
        length = min(length or _default_length(network, rules), network.max_prefixlen)
        first, last = int(network.network_address), int(network.broadcast_address)
        size = 1 << (network.max_prefixlen - length)
        # The first subnet is left out: its first address is the network's own.
        default_low, default_high = rules.address(min(first + size, last)), rules.address(max(last + 1 - size, first))
        if ranges:
            for key, address, default in ((min_key, low, default_low), (max_key, high, default_high)):
                self._check_bound(key, address, default, network, length)
            if low is not None and high is not None and int(low) > int(high):
                self._wrong(min_key, f"{min_key} is after {max_key}, so there is no subnet to lease", "swap the two")
        return Space(network, length, low or default_low, high or default_high)

    def _checked_length(self, key: str, length: int, network: IPNetwork, rules: _Rules) -> int | None:
        least = network.prefixlen + 2
        cure = f"write an integer from {least} to {rules.longest}, or leave it out"
        if least > rules.longest:
            cure = f"choose /{rules.longest - 2} or larger for {rules.prefix}Network"
        if length == 0:
            if least <= rules.longest:
                return _default_length(network, rules)
            reason = f"{rules.too_small}. Minimum useful network prefix is /{rules.longest - 2}"
            self._wrong(f"{rules.prefix}Network", reason, cure)
        elif length > rules.longest:
            self._wrong(key, f"SubnetLen must be less than /{rules.longest + 1}", cure)
        elif length < least:
            self._wrong(key, "network must be able to accommodate at least four subnets", cure)
        else:
            return length
        return None

    def _check_bound(
        self, key: str, address: IPAddress | None, default: IPAddress, network: IPNetwork, length: int
    ) -> None:
        if address is None:
            return
        cure = f"write the first address of a /{length} inside {network}, such as {default}, or leave it out"
        if address not in network:
            self._wrong(key, f"{key} is not in the range of the {key[:-9]}Network", cure)
        elif int(address) & ((1 << (network.max_prefixlen - length)) - 1):
            self._wrong(key, f"{key} is not on a SubnetLen boundary: {address}", cure)

    def _backend(self) -> tuple[str, dict[str, Any]]:
        if self._keys is None or "backend" not in self._keys:
            return DEFAULT_BACKEND, {}
        tree = self._keys["backend"]
        cure = 'write "Backend": {"Type": "vxlan"} or another installed backend (flannelctl plugins)'
        prefix = "error decoding Backend property of config: json: cannot unmarshal"
        if tree is not None and not isinstance(tree, dict):
            self._wrong("Backend", f"{prefix} {json_kind(tree)} into Go value of type struct {{ Type string }}", cure)
            return "", {}
        keys = {key: value for key, value in (tree or {}).items() if value is not None}
        name = next((keys.pop(key) for key in list(keys) if key.casefold() == "type"), "")
        if not isinstance(name, str):
            reason = f"{prefix} {json_kind(name)} into Go struct field .Type of type string"
            self._wrong("Backend.Type", reason, cure, name)
            return "", keys
        if not name:
            # Not the default: Go takes udp only where "Backend" itself is left out.
            self._wrong("Backend.Type", "unknown backend type: ", cure)
        return name.lower(), keys


def _default_length(network: IPNetwork, rules: _Rules) -> int:
    return max(rules.usual_length, network.prefixlen + 2)


def _looks_like_ipv4(network: IPNetwork) -> bool:
    """True for IPv6 networks around ::/96 and ::ffff:0:0/96: Go prints their addresses as IPv4, and cannot read a
    lease's key that is made of them."""
    return network.version == 6 and network.prefixlen > 0 and int(network.network_address) < 1 << 48


def _last_wins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object in which no two keys differ by case alone; null changes nothing, as in Go."""
    last: dict[str, tuple[str, Any]] = {}
    for key, value in pairs:
        folded = key.casefold()
        if value is not None or folded not in last:
            last[folded] = (key, value)
    return dict(last.values())


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"not JSON: {name} is no JSON value")


def _integer(text: str) -> int:
    if len(text) > 100:
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)
