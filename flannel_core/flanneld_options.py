"""The command line and environment of flanneld: Go flannel's options, ours, and those of the store in use.

``flannelctl`` reads the options that choose and reach a store with :func:`parse_store`, from the same structs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Annotated, Any, Generic, Literal, TypeVar

import msgspec

from . import __version__
from .command_line import Given, Option, convert, decode, options_of, read_environment, read_words
from .errors import FlannelError, UsageError
from .host_choice import HostOptions
from .lease import IPNetwork
from .plugins import PluginMissing, list_plugins, load_store
from .printable import printable
from .store import SubnetStore

DEFAULT_STORE = "etcd"
KUBERNETES = "kubernetes"
MAX_RENEW_MARGIN = 1439
"""Minutes: less than the 24 hours of a lease."""
BAD_RENEW_MARGIN = "Invalid subnet-lease-renew-margin option, out of acceptable range"
"""Go flannel's sentence; it exits with 1 there, and so it does here."""


def about(description: str, **constraints: Any) -> msgspec.Meta:
    """What the help and the reference say about an option, and the bounds of its value."""
    return msgspec.Meta(description=description, **constraints)


def spelt(option: str, description: str) -> msgspec.Meta:
    """The same for an option whose name is not its field's with dashes."""
    return msgspec.Meta(description=description, extra={"option": option})


class StoreChoice(msgspec.Struct, frozen=True, kw_only=True):
    """Which store, and where this host's state lies: what flanneld and flannelctl have in common."""

    store: Annotated[
        str | None,
        about(f"the store that holds the leases, by the name of its plugin. {DEFAULT_STORE} if it is left out, "
              f"{KUBERNETES} with --kube-subnet-mgr"),
    ] = None  # fmt: skip
    kube_subnet_mgr: Annotated[
        bool, about("take the subnet from the Kubernetes API, the same as --store kubernetes")
    ] = False
    subnet_file: Annotated[
        Path,
        about("where to write subnet.env. Its directory is the agent's only state directory; the agent's socket, "
              "flanneld.sock, lies there too"),
    ] = Path("/run/flannel/subnet.env")  # fmt: skip


class FlanneldOptions(StoreChoice, frozen=True, kw_only=True):
    """Every option of flanneld that does not belong to a store alone. An option of the store in use that has the name
    of one here (etcd-endpoints) is the same option."""

    etcd_endpoints: Annotated[str, about("the etcd servers' URLs, separated by commas")] = (
        "http://127.0.0.1:4001,http://127.0.0.1:2379"
    )
    etcd_prefix: Annotated[str, about("the key under which etcd holds the configuration and the leases")] = (
        "/coreos.com/network"
    )
    etcd_keyfile: Annotated[str, about("the client's private key for etcd, PEM")] = ""
    etcd_certfile: Annotated[str, about("the client's certificate for etcd, PEM")] = ""
    etcd_cafile: Annotated[str, about("the certificate authority that signed etcd's certificate, PEM")] = ""
    etcd_username: Annotated[str, about("the user to authenticate to etcd as")] = ""
    etcd_password: Annotated[str, about("that user's password. The variable keeps it out of the process list")] = ""
    iface: Annotated[
        tuple[str, ...],
        about("the external interface, by name or by an address of it. Repeats: the first that exists is taken; "
              "without any iface option it is the one with the public address, else that of the default route"),
    ] = ()  # fmt: skip
    iface_regex: Annotated[
        tuple[str, ...],
        about("a regular expression for the address or name of the external interface, tried after --iface. Repeats"),
    ] = ()
    iface_can_reach: Annotated[
        str, about("take the interface that the kernel would use towards this address, tried last")
    ] = ""
    public_ip: Annotated[
        IPv4Address | None, about("the IPv4 address that peers reach this host at; else the interface's")
    ] = None
    public_ipv6: Annotated[
        IPv6Address | None, about("the IPv6 address that peers reach this host at; else the interface's")
    ] = None
    subnet_lease_renew_margin: Annotated[
        int, about(f"renew the lease this many minutes before it expires, 1 to {MAX_RENEW_MARGIN}")
    ] = 60
    ip_masq: Annotated[bool, about("masquerade what leaves the cluster's network")] = False
    ip_masq_fully_random_disable: Annotated[
        bool, about("leave source ports of masqueraded connections to the kernel's own choice")
    ] = False
    ip_masq_exclude: Annotated[
        tuple[str, ...],
        about("never masquerade between the cluster's network and these prefixes (other sites, a VPN), separated by "
              "commas. Repeats"),
    ] = ()  # fmt: skip
    ip_blackhole_route: Annotated[
        bool, about("keep a blackhole route for the host's own subnet, so that what has no pod does not loop")
    ] = False
    iptables_forward_rules: Annotated[bool, about("accept forwarded packets from and to the cluster's network")] = True
    iptables_resync: Annotated[int, about("look after the traffic rules every so many seconds", ge=1)] = 5
    kube_api_url: Annotated[str, about("the Kubernetes API server; found by itself inside a pod")] = ""
    kubeconfig_file: Annotated[str, about("how to reach the Kubernetes API; found by itself inside a pod")] = ""
    kube_annotation_prefix: Annotated[
        str, about("what the node annotations begin with; a slash is put behind it if it has none")
    ] = "flannel.alpha.coreos.com"
    set_node_network_unavailable: Annotated[
        bool, about("clear the node's condition NetworkUnavailable once traffic flows")
    ] = True
    net_config_path: Annotated[
        Path, about("the file that holds the network configuration, for stores that do not hold it themselves")
    ] = Path("/etc/kube-flannel/net-conf.json")
    healthz_ip: Annotated[str, about("the address to serve /healthz and /readyz at")] = "0.0.0.0"
    healthz_port: Annotated[int, about("the port to serve them at; 0 for none", ge=0, le=65535)] = 0
    metrics: Annotated[bool, about("serve /metrics there too, for Prometheus")] = False
    store_silence: Annotated[
        int, about("not ready, says /readyz, once the store has been silent for so many seconds; traffic goes on", ge=1)
    ] = 300
    removal_hold_off: Annotated[
        int,
        about("remove no peer for so many seconds after the store has come back with older contents, without the "
              "lease of this host, or after a longer silence than that", ge=0),
    ] = 60  # fmt: skip
    dry_run: Annotated[bool, about("print what would be done on this host, do none of it, and end")] = False
    release_lease_on_exit: Annotated[
        bool,
        about("give the lease back when asked to stop, for a host that does not come back: its subnet goes to the next "
              "host that asks, and peers forget it. Devices, routes and rules stay; flannelctl cleanup removes them"),
    ] = False  # fmt: skip
    set_sysctls: Annotated[bool, about("set the sysctls that the host lacks, instead of only naming them")] = False
    log_format: Annotated[
        Literal["text", "json"], about("log lines as klog writes them, or one JSON object a line")
    ] = "text"
    verbosity: Annotated[int, spelt("v", "how much to log; 1 and more adds debug lines")] = 0
    vmodule: Annotated[str, about("accepted for Go flannel's sake, without effect")] = ""
    log_backtrace_at: Annotated[str, spelt("log_backtrace_at", "accepted for Go flannel's sake, without effect")] = ""

    def __post_init__(self) -> None:
        """Raises FlannelError, exit 1, with Go's sentence for a margin that a lease cannot have; UsageError for what is
        no prefix, and for metrics without a port."""
        if not 1 <= self.subnet_lease_renew_margin <= MAX_RENEW_MARGIN:
            raise FlannelError(BAD_RENEW_MARGIN)
        _ = self.excludes
        if self.metrics and not self.healthz_port:
            raise UsageError("--metrics: there is no port to serve them at; give one with --healthz-port")

    @property
    def excludes(self) -> tuple[IPNetwork, ...]:
        """What ``ip_masq_exclude`` says. Raises UsageError."""
        return tuple(_prefix(text.strip()) for given in self.ip_masq_exclude for text in given.split(","))

    @property
    def host(self) -> HostOptions:
        """Those that choose the external interface and its addresses."""
        return HostOptions(
            iface=self.iface,
            iface_regex=self.iface_regex,
            iface_can_reach=self.iface_can_reach,
            public_ip=str(self.public_ip or ""),
            public_ipv6=str(self.public_ipv6 or ""),
        )


def _prefix(text: str) -> IPNetwork:
    try:
        return ip_network(text)
    except ValueError as error:
        raise UsageError(
            f"--ip-masq-exclude={printable(text)} does not fit: expected a prefix such as 10.1.0.0/16 or fd00:1::/48"
            f" ({printable(str(error))})"
        ) from None


ChoiceT = TypeVar("ChoiceT", bound=StoreChoice)


class Parsed(msgspec.Struct, Generic[ChoiceT], frozen=True):
    """A command line and environment, understood.

    ``store_options`` is an instance of ``store_class.Options``. ``given`` are the names of the options that the user
    gave a value, by either way: ``net-config-path`` in it means more than its default.
    """

    options: ChoiceT
    store_name: str
    store_class: type[SubnetStore[Any]]
    store_options: msgspec.Struct
    given: frozenset[str]


class Answer(msgspec.Struct, frozen=True):
    """The user wants to be told something, and nothing else is to be done: exit 0. The version goes to stderr, where
    Go flannel puts it, the help to stdout."""

    text: str
    to_stderr: bool = False


def _asked(name: str, description: str) -> Option:
    return Option(name, name, bool, "switch", False, False, description)


QUESTIONS = (_asked("version", "print the version and exit"), _asked("help", "print this and exit"))
_H = _asked("h", "the same")


def parse(argv: Sequence[str], environ: Mapping[str, str]) -> Parsed[FlanneldOptions] | Answer:
    """What ``flanneld`` is asked to do; ``argv`` is without the program's name.

    Raises UsageError (exit 2) for what does not fit, PluginMissing and PluginBroken for the store, FlannelError with
    Go's sentence (exit 1) for a renewal margin out of range.
    """
    core = options_of(FlanneldOptions)
    asked = read_words(argv, _by_name((*core, *QUESTIONS, _H)), tolerant=True)
    if _switched(QUESTIONS[1], asked) or _switched(_H, asked):
        return Answer(help_text())
    if _switched(QUESTIONS[0], asked):
        return Answer(f"v{__version__} flannel-core (Python)\n", to_stderr=True)
    parsed = _parse(argv, environ, FlanneldOptions, core, QUESTIONS)
    if parsed.options.release_lease_on_exit and "release" not in parsed.store_class.capabilities:
        raise UsageError(
            f"--release-lease-on-exit does not go with --store={parsed.store_name}, whose subnets are not given back"
        )
    return parsed


def parse_store(
    argv: Sequence[str], environ: Mapping[str, str], operands: list[str] | None = None
) -> Parsed[StoreChoice]:
    """The store that ``argv`` names, with its own options, for flannelctl. ``operands``, if given, takes the words
    that are no options. Raises as :func:`parse` does."""
    return _parse(argv, environ, StoreChoice, options_of(StoreChoice), operands=operands)


def _parse(
    argv: Sequence[str],
    environ: Mapping[str, str],
    choice: type[ChoiceT],
    core: tuple[Option, ...],
    questions: tuple[Option, ...] = (),
    operands: list[str] | None = None,
) -> Parsed[ChoiceT]:
    known = _by_name((*core, *questions))
    first = read_words(argv, known, tolerant=True)
    first |= read_environment(environ, core, first)
    name = _store_name(decode(choice, core, first))
    try:
        store_class = load_store(name)
    except PluginMissing:
        if "store" not in first:
            # A misspelt option is the likelier mistake, and says so.
            read_words(argv, known, operands=None if operands is None else [])
        raise
    own = store_options_of(name, store_class)
    given = read_words(argv, _by_name((*own, *core, *questions)), operands=operands)
    given |= read_environment(environ, (*core, *own), given)
    options = decode(choice, core, given)
    if _store_name(options) != name:
        raise UsageError(f"which store is meant is not clear; write --store={printable(name)} first")
    return Parsed(options, name, store_class, decode(store_class.Options, own, given), frozenset(given))


def _store_name(options: StoreChoice) -> str:
    if options.kube_subnet_mgr:
        if options.store not in (None, KUBERNETES):
            raise UsageError(f"--store={printable(options.store or '')} and --kube-subnet-mgr exclude each other")
        return KUBERNETES
    return DEFAULT_STORE if options.store is None else options.store


def store_options_of(name: str, store_class: type[SubnetStore[Any]]) -> tuple[Option, ...]:
    """The options of a store, ``--NAME-FIELD`` unless a field says otherwise."""
    return options_of(store_class.Options, prefix=f"{name}-")


def _by_name(options: Iterable[Option]) -> dict[str, Option]:
    """By name; of two with one name the later: a core option tells how its words are read."""
    return {option.name: option for option in options}


def _switched(option: Option, given: Mapping[str, tuple[Given, ...]]) -> bool:
    return option.name in given and bool(convert(option, given[option.name]))


_USAGE = """\
Usage: flanneld [OPTION]...

The agent of one host: takes a subnet, tells the other hosts, and makes the kernel reach theirs.

One dash or two, --name=value or --name value; a switch stands alone, or --name=false. Each option is also a variable:
FLANNELD_ and its name in upper case with _ for -. What stands on the command line wins.

"""


def help_text() -> str:
    """The usage: every option of flanneld, then those of each installed store."""
    core = (*options_of(FlanneldOptions), *QUESTIONS)
    names = {option.name for option in core}
    parts = [_USAGE, _described(core)]
    for plugin in list_plugins():
        if plugin.kind == "store" and plugin.error is None:
            own = [o for o in store_options_of(plugin.name, load_store(plugin.name)) if o.name not in names]
            if own:
                parts.append(f"\nWith --store {plugin.name}:\n{_described(own)}")
    return "".join(parts)


def _described(options: Iterable[Option]) -> str:
    lines = []
    for option in options:
        value = {"switch": "", "integer": " NUMBER"}.get(option.kind, f" {'|'.join(option.values) or 'TEXT'}")
        default = f" (default {option.default_text})" if option.default_text else ""
        lines.append(f"  --{option.name}{value}\n        {option.description}{default}\n")
    return "".join(lines)
