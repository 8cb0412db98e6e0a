"""``flannelctl lab``: a flannel network of virtual hosts on this machine, and whether its pods reach each other."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any, Literal

from cyclopts import App, Parameter
from cyclopts.validators import Number
from rich.console import Console

from ..errors import EXIT_FAILED, EXIT_OK
from ..lab import Host, Lab, LabError, PingResult, record
from ..lab.network import MOST_MACHINES
from ..lab.preflight import lacking, machine_lacks
from ..lab.programs import FLANNELCTL
from ..objects import FLANNEL_PROTOCOL
from .output import complain, say, show_json, show_table

Family = Literal["ipv4", "ipv6", "dual-stack"]

app = App(
    name="lab",
    help="Build a flannel network of virtual hosts on this machine and ping through it.",
    help_format="plaintext",
    default_parameter=Parameter(negative=()),
)


@app.default
def lab(
    *,
    hosts: Annotated[int, Parameter(validator=Number(gte=1, lte=MOST_MACHINES))] = 3,
    backend: str = "vxlan",
    store: str = "sqlite",
    members: Annotated[int, Parameter(validator=Number(gte=1, lte=7))] = 1,
    family: Family = "ipv4",
    keep: bool = False,
    json: bool = False,
) -> int:
    """Start hosts with an agent each, ping every pod from every other, and remove everything again.

    Each host, its pod and what joins them are network namespaces of the lab's own: nothing of this machine is touched.
    Exit code 0 if every pod reaches every other, else 1 with the reason. Needs root.

    Parameters
    ----------
    hosts
        How many hosts.
    backend
        How packets move: Backend.Type of net-conf.json.
    store
        Where the leases live.
    members
        How many servers the store has, where it has servers (etcd).
    family
        The address families that are on.
    keep
        Leave the lab standing and say how to look at it; "flannelctl lab clean" removes it.
    json
        Print the result as JSON.
    """
    began = time.monotonic()
    ipv4, ipv6 = family != "ipv6", family != "ipv4"
    if problems := lacking(backend, store, ipv6=ipv6):
        raise LabError("\n".join(problems))
    results: list[PingResult] = []
    failure = ""
    with _signals_leave_in_order(), _progress() as progress, Lab(progress) as the_lab:
        try:
            the_lab.hosts(hosts, backend=backend, store=store, members=members, ipv4=ipv4, ipv6=ipv6)
            results = the_lab.ping_table()
            failure = "\n".join(host.explain() for host in the_lab.all_hosts if _unreached(host, results))
        except LabError as error:
            failure = str(error)
        if keep:
            the_lab.keep()
    seconds = time.monotonic() - began
    answered = sum(result.milliseconds is not None for result in results)
    if json:
        show_json(_facts(the_lab, results) | {"failure": failure or None, "kept": keep, "seconds": round(seconds, 2)})
    else:
        if results:
            _show_pings(the_lab.all_hosts, results)
        say(f"{answered} of {len(results)} pings answered, {backend} on {store}, {family}, {seconds:.1f} s")
        if keep:
            _show_how_to(the_lab.all_hosts)
    for sentence in filter(None, [failure, *the_lab.leftovers]):
        complain(sentence)
    return EXIT_FAILED if failure or answered < len(results) else EXIT_OK


@app.command
def clean(*, json: bool = False) -> int:
    """Remove the labs that were kept, and what is left of those that crashed.

    A lab that still runs is left alone. Exit code 1 if something could not be removed.

    Parameters
    ----------
    json
        Print what was done as JSON.
    """
    if problems := machine_lacks():
        raise LabError("\n".join(problems))
    removed: list[str] = []
    running: list[record.Record] = []
    left: list[str] = []
    for found in record.records():
        if found.in_use:
            running.append(found)
        else:
            left += record.remove(found)
            removed.append(found.id)
    if json:
        show_json({"removed": removed, "running": [{"id": r.id, "pid": r.pid} for r in running], "left": left})
    else:
        for identifier in removed:
            say(f"lab {identifier} removed")
        for found in running:
            say(f"lab {found.id} is in use by pid {found.pid}, left alone")
        if not removed and not running:
            say("there is no lab")
    for sentence in left:
        complain(sentence)
    return EXIT_FAILED if left else EXIT_OK


def _unreached(host: Host, results: Sequence[PingResult]) -> bool:
    return any(r.milliseconds is None and host.name in (r.source, r.target) for r in results)


def _facts(the_lab: Lab, results: Sequence[PingResult]) -> dict[str, Any]:
    return {
        "id": the_lab.id,
        "hosts": [
            {
                "name": host.name,
                "namespace": host.namespace,
                "pod": host.pod.namespace,
                "pod_addresses": list(host.pod.addresses.values()),
                "subnet_file": str(host.subnet_file),
            }
            for host in the_lab.all_hosts
        ],
        "pings": [
            {
                "from": r.source,
                "to": r.target,
                "family": r.family,
                "ms": r.milliseconds,
                "reason": r.reason if r.milliseconds is None else None,
            }
            for r in results
        ],
        "answered": sum(r.milliseconds is not None for r in results),
    }


def _show_pings(hosts: Sequence[Host], results: Sequence[PingResult]) -> None:
    """A row per source: what each column's pod took to answer, IPv4 before IPv6, or why it did not."""
    cells: dict[tuple[str, str], list[str]] = {}
    for r in results:
        answer = r.reason if r.milliseconds is None else f"{r.milliseconds:.2f} ms"
        cells.setdefault((r.source, r.target), []).append(answer)
    columns = [f"{host.name} {' '.join(host.pod.addresses.values())}" for host in hosts]
    show_table(
        ("FROM \\ TO", *columns),
        [(row.name, *(" / ".join(cells.get((row.name, column.name), ["-"])) for column in hosts)) for row in hosts],
    )


def _show_how_to(hosts: Sequence[Host]) -> None:
    host = hosts[0]
    say("The lab stays. Its hosts are the namespaces " + " ".join(host.namespace for host in hosts))
    for what, command in (
        ("enter one", f"ip netns exec {host.namespace} bash"),
        ("enter its pod", f"ip netns exec {host.pod.namespace} bash"),
        ("its status", f"{FLANNELCTL} status --subnet-file {host.subnet_file}"),
        ("its log", f"less {host.log_file}"),
        ("break something", f"ip -n {host.namespace} route flush proto {FLANNEL_PROTOCOL}"),
        ("see it repaired", f"ip -n {host.namespace} route"),
        ("remove the lab", f"{FLANNELCTL} lab clean"),
    ):
        say(f"  {what:<16}{command}")


@contextlib.contextmanager
def _progress() -> Iterator[Callable[[str], None]]:
    """What the lab is doing, on stderr: one changing line on a terminal, else a line each."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: print(text, file=sys.stderr)
        return
    with console.status("starting") as status:
        yield status.update


@contextlib.contextmanager
def _signals_leave_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP leave through the ``with`` blocks, as Ctrl-C does."""

    def leave(number: int, _: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, leave) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
