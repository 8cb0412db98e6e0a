"""The plugin: what it does for each command of a container runtime."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

from flannel_core import __version__
from flannel_core.printable import printable

from . import delegate, subnet_env
from .attachments import Attachment, Attachments
from .delegate_config import (
    VALID_ATTACHMENTS,
    delegate_config,
    encode_config,
    section,
    string,
    subnets_of,
    with_gateways,
)
from .protocol import (
    CURRENT,
    DECODING_FAILURE,
    INTERNAL,
    INVALID_NETNS,
    INVALID_NETWORK_CONFIG,
    IO_FAILURE,
    NOT_AVAILABLE,
    VERSIONS,
    Call,
    CniError,
    Json,
    decode,
    encode,
    parse_call,
)
from .subnet_env import SubnetEnv

SUBNET_FILE = "/run/flannel/subnet.env"
DATA_DIR = "/var/lib/cni/flannel"
UNDO_SECONDS = 15.0
"""How long taking back a failed ADD may take; the runtime's DEL has all the time again."""

Environment = Mapping[str, str]


class NoSubnet(Exception):
    """subnet.env is not there, or not whole."""


def add(call: Call, environment: Environment) -> bytes:
    """Have the delegate attach the container. What a failure leaves is taken back, as far as the delegate can."""
    _check_namespace(call)
    config = _rendered(call)
    text = encode_config(config)
    attachments = _attachments(call)
    before = attachments.find(call.container, call.interface)
    try:
        program = delegate.find(config["type"], call.paths)
    except CniError as error:
        raise CniError(error.code, f"failed to delegate add: {error.message}") from None
    _say(f"delegateAdd: netconf sent to delegate plugin: {text.decode()}")
    attachment = attachments.keep(call.container, call.interface, text)
    try:
        answer = delegate.call(program, text, environment)
        return encode(delegate.result(program, answer, call.version))
    except (CniError, OSError):
        if before:  # The container had its place already. That one stands, and was no part of this.
            attachments.keep(call.container, call.interface, before.config)
        else:
            _take_back(attachments, attachment, program, environment)
        raise


def delete(call: Call, environment: Environment) -> bytes:
    """Have the delegate take the container away; what was never attached, or is gone, is no error."""
    _check_namespace(call)
    attachments = _attachments(call)
    if attachment := attachments.find(call.container, call.interface):
        _detach(attachments, attachment, _noted(call, attachment), call, environment)
    return b""


def check(call: Call, environment: Environment) -> bytes:
    """Whether the container still has what it was given: its state, an address of the subnet that is leased now, and
    what the delegate looks at."""
    if not isinstance(previous := call.config.get("prevResult"), dict):
        raise CniError(INVALID_NETWORK_CONFIG, "CHECK needs the result of ADD as 'prevResult'")
    attachment = _attachments(call).find(call.container, call.interface)
    if attachment is None:
        raise CniError(
            INTERNAL,
            f"container {call.container} has no {call.interface} in the network {call.network}: "
            f"nothing is noted down in {_data_dir(call)}",
        )
    config = _noted(call, attachment)
    try:
        leased = [str(subnet) for subnet in _subnet_env(call).subnets]
    except NoSubnet:
        pass  # The agent has yet to start. That takes no container's network away.
    else:
        if lost := [subnet for subnet in subnets_of(config) if subnet not in leased]:
            raise CniError(
                INTERNAL,
                f"container {call.container} has an address of {', '.join(lost)}, but this host leases "
                f"{', '.join(leased)}: it cannot be reached until it is made anew",
            )
    try:
        config = {**config, "prevResult": with_gateways(previous), "cniVersion": call.version}
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise CniError(INVALID_NETWORK_CONFIG, f"'prevResult' is no result of ADD: {error}") from None
    delegate.call(delegate.find(config["type"], call.paths), encode_config(config), environment)
    return b""


def status(call: Call, environment: Environment) -> bytes:
    """Whether an ADD would work now."""
    try:
        config = _rendered(call)
        for plugin in (config["type"], config["ipam"]["type"]):
            delegate.find(plugin, call.paths)
    except CniError as error:
        raise CniError(NOT_AVAILABLE, error.message, error.details) from None
    _if_it_can(config, "STATUS", call, environment)
    return b""


def collect(call: Call, environment: Environment) -> bytes:
    """GC: take away every attachment of this network that the runtime does not name. One that cannot be taken away
    holds up no other; they are named together in the end."""
    valid = _valid_attachments(call)
    containers = {container for container, _ in valid}
    attachments = _attachments(call)
    failures = []
    for attachment in attachments.all():
        if (attachment.container, attachment.interface) in valid:
            continue
        if attachment.path.name == attachment.container and attachment.container in containers:
            continue  # Go's plugin noted down no interface
        try:
            gone = {key: value for key, value in environment.items() if key not in ("CNI_NETNS", "CNI_ARGS")}
            gone |= {"CNI_CONTAINERID": attachment.container, "CNI_IFNAME": attachment.interface}
            _detach(attachments, attachment, _noted(call, attachment), call, gone)
        except CniError as error:
            failures.append(f"{attachment.container} {attachment.interface}: {error.message}")
    if failures:
        raise CniError(INTERNAL, "not everything could be taken away", "; ".join(failures))
    try:
        config = {**_rendered(call), VALID_ATTACHMENTS: call.config[VALID_ATTACHMENTS]}
    except CniError:
        return b""  # without a subnet there is no delegate to be asked
    _if_it_can(config, "GC", call, environment)
    return b""


def version(call: Call, environment: Environment) -> bytes:
    """The versions of the specification that the plugin speaks, on one line, as Go's plugins tell them."""
    return b'{"cniVersion":"%s","supportedVersions":[%s]}\n' % (
        CURRENT.encode(),
        ",".join(f'"{version}"' for version in VERSIONS).encode(),
    )


COMMANDS: dict[str, Callable[[Call, Environment], bytes]] = {
    "ADD": add,
    "DEL": delete,
    "CHECK": check,
    "STATUS": status,
    "GC": collect,
    "VERSION": version,
}


def main() -> int:
    """Run the plugin with the environment and the standard input of this process, and return its exit code.

    The answer, or the error object, goes to standard output. No exception leaves it.
    """
    environment = dict(os.environ)
    if not environment.get("CNI_COMMAND"):
        _say(f"CNI Plugin flannel version {__version__} (flannel for Python)")
        _say(f"CNI protocol versions supported: {', '.join(VERSIONS)}")
        return 0
    code = 1
    try:
        call = parse_call(environment, _stdin)
        answer = COMMANDS[call.command](call, environment)
        code = 0
    except CniError as error:
        answer = error.encode()
    except OSError as error:
        answer = CniError(IO_FAILURE, f"{error.filename or 'this host'}: {error.strerror or error}").encode()
    except Exception as error:
        words = f"a mistake of the plugin itself, please report it: {type(error).__name__}: {error}"
        answer = CniError(INTERNAL, words, _place(error)).encode()
    with open(1, "wb", closefd=False) as stdout:
        stdout.write(answer)
    return code


def _stdin() -> bytes:
    with open(0, "rb", closefd=False) as stdin:
        return stdin.read()


def _place(error: BaseException) -> str:
    """Where it was raised. The module traceback would cost each start of the plugin two milliseconds."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}" if trace else ""


def _say(line: str) -> None:
    delegate.say(f"{line}\n".encode(errors="backslashreplace"))


def _check_namespace(call: Call) -> None:
    """The host's own namespace must not be taken for a container's. One that is gone is the delegate's affair."""
    if call.netns_override:
        return
    try:
        theirs = Path(call.netns).stat()
    except OSError:
        return
    try:
        own = Path("/proc/self/ns/net").stat()
    except OSError:
        raise CniError(INVALID_NETNS, "get plugin's netns failed") from None
    if (theirs.st_dev, theirs.st_ino) == (own.st_dev, own.st_ino):
        raise CniError(INVALID_NETNS, "plugin's netns and netns from CNI_NETNS should not be the same")


def _data_dir(call: Call) -> Path:
    try:
        return Path(string(call.config, "dataDir", DATA_DIR))
    except ValueError as error:
        raise CniError(INTERNAL, str(error)) from None


def _attachments(call: Call) -> Attachments:
    return Attachments(_data_dir(call), call.network)


def _subnet_env(call: Call) -> SubnetEnv:
    """Raises NoSubnet, saying why there is none yet; ValueError for a configuration that is none."""
    path = Path(string(call.config, "subnetFile", SUBNET_FILE))
    try:
        return subnet_env.parse(path.read_bytes(), str(path))
    except FileNotFoundError:
        from .agent import what_it_waits_for  # with what it imports, which no other start pays for

        why = what_it_waits_for(path)
        raise NoSubnet(
            f"failed to load flannel 'subnet.env' file: open {path}: no such file or directory. {why}."
        ) from None
    except ValueError as error:
        why = f"{error}. Check the flannel pod log for this node."
        raise NoSubnet(f"failed to load flannel 'subnet.env' file: {why}") from None


def _rendered(call: Call) -> Json:
    """The delegate's configuration, of what stands now. Raises CniError."""
    try:
        section(
            call.config, "delegate"
        )  # what is wrong with the file itself is said before what is missing on the host
        return delegate_config(call, _subnet_env(call))
    except (ValueError, NoSubnet) as error:
        raise CniError(INTERNAL, str(error)) from None


def _noted(call: Call, attachment: Attachment) -> Json:
    """The delegate's configuration as it was noted down; as it would be now, where that cannot be read. Raises
    CniError."""
    try:
        config = decode(attachment.config)
        if isinstance(config.get("type"), str):
            return config
        why = "it names no plugin"
    except ValueError as error:
        why = str(error)
    try:
        return _rendered(call)
    except CniError as error:
        raise CniError(
            DECODING_FAILURE,
            f"{attachment.path} cannot be read ({printable(why)}), and what it said cannot be told anew",
            error.message,
        ) from None


def _detach(
    attachments: Attachments, attachment: Attachment, config: Json, call: Call, environment: Environment
) -> None:
    """What is noted down stays until the delegate has done its part, so that a later DEL can. Raises CniError."""
    program = delegate.find(config["type"], call.paths)
    delegate.call(program, encode_config(config), {**environment, "CNI_COMMAND": "DEL"})
    attachments.forget(attachment)


def _take_back(attachments: Attachments, attachment: Attachment, program: Path, environment: Environment) -> None:
    """After an ADD that failed; where that fails too, the runtime's DEL finds what is noted down."""
    try:
        delegate.call(program, attachment.config, {**environment, "CNI_COMMAND": "DEL"}, UNDO_SECONDS)
    except CniError as error:
        _say(f"what the failed ADD left is left to a DEL: {printable(error.message, 1000)}")
    else:
        attachments.forget(attachment)


def _valid_attachments(call: Call) -> set[tuple[str, str]]:
    """Container and interface of those that exist. Without such a list nothing may be taken away."""
    try:
        return {(entry["containerID"], entry["ifname"]) for entry in call.config[VALID_ATTACHMENTS]}
    except (KeyError, TypeError):
        raise CniError(
            INVALID_NETWORK_CONFIG, f"GC needs '{VALID_ATTACHMENTS}', a list of objects with containerID and ifname"
        ) from None


def _if_it_can(config: Json, command: str, call: Call, environment: Environment) -> None:
    """Pass STATUS or GC on to a delegate that knows it: it came with 1.1.0 of the specification."""
    program = delegate.find(config["type"], call.paths)
    if CURRENT in delegate.versions(program, environment):
        delegate.call(program, encode_config(config), {**environment, "CNI_COMMAND": command})
