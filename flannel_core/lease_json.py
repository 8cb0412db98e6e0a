"""How a lease looks in a store that Go flannel reads and writes: its key and its JSON, byte for byte.

One key under ``PREFIX/subnets`` that does not parse, or whose value does not, makes every running Go node drop all its
peers: :func:`encode_lease` and :func:`lease_key` raise before they return such a thing, and :func:`decode_lease`
answers :class:`~flannel_core.lease.Malformed` instead of raising.
"""

from __future__ import annotations

import re
import sys
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

import msgspec

from .lease import Endpoint, IPAddress, IPNetwork, Lease, Malformed
from .printable import printable

MAX_VALUE_BYTES = 16384
"""The longest value that is read as a lease. The longest real one is about 600 bytes."""

_KEY = re.compile(r"([0-9]+\.[0-9]+\.[0-9]+\.[0-9]+)-([0-9]+)(?:&([a-f0-9:]+)-([0-9]+))?")
"""Go's subnetRegex (pkg/subnet/subnet.go), except that Go lets anything stand to the left of the address: a key that
we take for a lease's is safe to print."""
_NO_IPV4 = "0.0.0.0-0"
"""What stands for IPv4 in the key of a lease that has IPv6 only."""
_UNSPECIFIED4 = IPv4Address(0)
_UNSPECIFIED6 = IPv6Address(0)


class MalformedLease(ValueError):
    """A key or a value that is no lease. ``str(error)`` says why; text from the store is escaped and cut in it."""


def lease_key(ipv4: IPNetwork | None, ipv6: IPNetwork | None) -> str:
    """``10.0.43.0-24``, ``10.0.43.0-24&fc00::-64`` or, with IPv6 alone, ``0.0.0.0-0&fc00::-64``.

    Raises ValueError for subnets whose key no flannel could parse.
    """
    if ipv4 is None and ipv6 is None:
        raise ValueError("a lease has at least one subnet")
    key = _NO_IPV4 if ipv4 is None else f"{ipv4.network_address}-{ipv4.prefixlen}"
    if ipv6 is not None:
        key += f"&{_ipv6_text(ipv6.network_address)}-{ipv6.prefixlen}"
    if parse_key(key) != (ipv4, ipv6):
        raise ValueError(f"{ipv4}, {ipv6}: these subnets have no key that can be read back")
    return key


def parse_key(key: str) -> tuple[IPv4Network | None, IPv6Network | None]:
    """The subnets that a key names: at least one. Raises MalformedLease."""
    found = _KEY.fullmatch(key)
    if found is None:
        raise MalformedLease(f"the key '{printable(key)}' is not of the form 10.5.43.0-24 or 10.5.43.0-24&fc00::-64")
    address4, length4, address6, length6 = found.groups()
    try:
        ipv6 = None if address6 is None else IPv6Network((address6, _length(length6, 127)))
        if ipv6 is not None and f"{address4}-{length4}" == _NO_IPV4:
            return None, ipv6
        ipv4 = IPv4Network((address4, _length(length4, 31)))
    except ValueError as error:
        raise MalformedLease(f"the key '{printable(key)}' names no subnet: {printable(str(error))}") from None
    if ipv4.prefixlen == 0:
        raise MalformedLease(f"the key '{printable(key)}' names the whole of IPv4")
    return ipv4, ipv6


def encode_lease(lease: Lease) -> bytes:
    """The value that is stored for ``lease``: Go's ``json.Marshal`` of it.

    Data is raw JSON. Raises ValueError if it is not, or if the whole exceeds MAX_VALUE_BYTES.
    """
    public4 = _UNSPECIFIED4 if lease.ipv4 is None else lease.ipv4.public_ip
    address6 = _UNSPECIFIED6 if lease.ipv6 is None else lease.ipv6.public_ip
    # Go's alloc leaves it null even where the key names an IPv6 subnet.
    public6 = "null" if address6 == _UNSPECIFIED6 else f'"{_ipv6_text(address6)}"'
    value = f'{{"PublicIP":"{public4}","PublicIPv6":{public6}'.encode()
    if lease.backend_type:
        value += b',"BackendType":' + _escape_html(msgspec.json.encode(lease.backend_type))
    for name, endpoint in ((b"BackendData", lease.ipv4), (b"BackendV6Data", lease.ipv6)):
        if endpoint is not None and endpoint.data:
            value += b',"' + name + b'":' + compact_json(endpoint.data)
    value += b"}"
    if len(value) > MAX_VALUE_BYTES:
        raise ValueError(f"a lease of {len(value)} bytes is longer than the {MAX_VALUE_BYTES} that its readers take")
    return value


def decode_lease(key: str, value: bytes, *, created: int, revision: int, expires: float | None) -> Lease | Malformed:
    """The lease that stands in a store under ``key`` (without the prefix). Never raises.

    The endpoints are those of the key; an address that the value leaves out is the unspecified one, which admission
    refuses. ``null`` data counts as left out.
    """
    try:
        subnet4, subnet6 = parse_key(key)
        attributes = _attributes(value)
        ipv4 = ipv6 = None
        if subnet4 is not None:
            public4 = IPv4Address(attributes.public_ip) if attributes.public_ip is not None else _UNSPECIFIED4
            ipv4 = Endpoint(subnet4, public4, _data(attributes.data))
        if subnet6 is not None:
            ipv6 = Endpoint(subnet6, _ipv6(attributes.public_ipv6), _data(attributes.v6_data))
        # One string for all peers, one number for a lease that was written once: there may be thousands.
        revision = created if revision == created else revision
        backend_type = sys.intern(attributes.backend_type or "")
        return Lease(key, backend_type, ipv4, ipv6, created, revision, expires)
    except MalformedLease as error:
        reason = str(error)
    except RecursionError:
        reason = "the value is nested too deep"
    except UnicodeDecodeError:
        reason = "the value is not UTF-8"
    except ValueError as error:
        reason = f"the value is no lease: {printable(str(error), 160)}"
    return Malformed(key, reason, revision)


class _Attributes(msgspec.Struct, gc=False, forbid_unknown_fields=True):
    """Go's LeaseAttrs. Unknown fields are forbidden to notice names in another case, see ``_attributes``."""

    public_ip: str | None = msgspec.field(default=None, name="PublicIP")
    public_ipv6: str | None = msgspec.field(default=None, name="PublicIPv6")
    backend_type: str | None = msgspec.field(default=None, name="BackendType")
    data: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="BackendData")
    v6_data: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="BackendV6Data")


_decoder = msgspec.json.Decoder(_Attributes)
_raw_decoder = msgspec.json.Decoder(dict[str, msgspec.Raw])
_NAMES = {field.encode_name.casefold(): field.encode_name for field in msgspec.structs.fields(_Attributes)}


def _attributes(value: bytes) -> _Attributes:
    if len(value) > MAX_VALUE_BYTES:
        raise MalformedLease(f"the value has {len(value)} bytes, more than {MAX_VALUE_BYTES}")
    value.decode()  # msgspec takes any bytes in a string that it skips
    try:
        return _decoder.decode(value)
    except msgspec.ValidationError:
        # Go ignores unknown names and the case of known ones. Rare, so every other lease is spared the work.
        known = {}
        for name, raw in _raw_decoder.decode(value).items():
            if (field := _NAMES.get(name.casefold())) is not None:
                known[field] = raw
        return _decoder.decode(msgspec.json.encode(known))


def _data(raw: msgspec.Raw) -> bytes | None:
    data = bytes(raw)
    return None if data in (b"", b"null") else data


def _length(text: str, most: int) -> int:
    length = int(text) if len(text) <= 20 else most + 1
    if length > most:
        raise ValueError(f"the prefix length {printable(text, 20)} is more than {most}")
    return length


def _ipv6(text: str | None) -> IPv6Address:
    if text is None:
        return _UNSPECIFIED6
    if "%" in text:
        raise ValueError(f"'{text}' is an address with a zone")
    # Go prints a mapped address as IPv4 and reads it back as one.
    return IPv6Address(text) if ":" in text else IPv6Address(f"::ffff:{IPv4Address(text)}")


def _ipv6_text(address: IPAddress) -> str:
    """Go's text of an IPv6 address (IP6.String in pkg/ip): mapped and compatible ones look like IPv4."""
    number = int(address)
    if number >> 32 == 0xFFFF or 1 << 24 <= number < 1 << 32:
        return str(IPv4Address(number & 0xFFFFFFFF))
    return str(address)


def compact_json(data: bytes) -> bytes:
    """What Go's ``json.Marshal`` makes of a json.RawMessage: no white space, and escaped for HTML.
    Raises ValueError."""
    try:
        data.decode()
        return _escape_html(bytes(msgspec.json.format(data, indent=-1)))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the backend's data is not JSON: {error}") from None


def _escape_html(compact: bytes) -> bytes:
    # These occur in strings only, so the text need not be parsed.
    for plain, escaped in (
        (b"<", b"\\u003c"),
        (b">", b"\\u003e"),
        (b"&", b"\\u0026"),
        ("\u2028".encode(), b"\\u2028"),
        ("\u2029".encode(), b"\\u2029"),
    ):
        compact = compact.replace(plain, escaped)
    return compact
