"""Agents whose cloud's router forwards, as the tests of every cloud speak of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from .cloud import LabCloud
from .hosts import Host
from .lab import Lab
from .network import LabError

UNREAD_SECONDS = 3.0
"""A host that looks every second has sent a request by then, unless it still waits for the answer to one."""
FREEZES = 5

C = TypeVar("C", bound=LabCloud)


class CloudFabric(Generic[C]):
    """``hosts`` are all that there are in ``cloud``, and look at it every second."""

    def __init__(self, lab: Lab, cloud: C, hosts: Sequence[Host]) -> None:
        self.lab = lab
        self.cloud = cloud
        self.hosts = list(hosts)

    def next_hop(self, host: Host) -> str:
        """What a route to ``host`` leads to."""
        return self.cloud.next_hop(host.machine.name)

    @property
    def own_routes(self) -> dict[str, str]:
        """What the cloud has to hold."""
        return {str(subnet): self.next_hop(host) for host in self.hosts for subnet in host.env.subnets}

    @contextmanager
    def left_in_place(self) -> Iterator[None]:
        """For a test that finds everything in place and no requests, and whose refusals end with it."""
        self.comes_into_place()
        self.cloud.forget_requests()
        yield
        self.cloud.heal()
        self.comes_into_place()

    def comes_into_place(self) -> None:
        """Each host's route is there and no other, all pods reach each other, nobody has anything to complain of."""
        within = self.cloud.heal_seconds
        self.lab.eventually(lambda: self.cloud.routes() == self.own_routes, within)
        self.lab.eventually(lambda: all(a.pings(b) for a in self.hosts for b in self.hosts if a is not b))
        self.lab.eventually(lambda: not [problem for host in self.hosts for problem in host.status().problems], within)

    def is_looked_at(self, *hosts: Host, times: int = 2) -> None:
        """Wait for so many drift checks of each of ``hosts`` that begin from now on. All of them but the last have done
        what they had to do."""
        wanted = {host.machine.name: self.cloud.looks(host.machine.name) + times for host in hosts}
        self.lab.eventually(
            lambda: all(self.cloud.looks(name) > looks for name, looks in wanted.items()), self.cloud.heal_seconds
        )

    def complains(self, host: Host, text: str) -> str:
        """Wait until ``host``'s status says ``text``; returns the problem."""
        return self.lab.eventually(
            lambda: next((problem for problem in host.status().problems if text in problem), ""),
            self.cloud.heal_seconds,
        )

    def waits(self, host: Host, text: str) -> None:
        """Wait until ``host``'s agent says that it waits for ``text``."""
        self.lab.eventually(lambda: text in (host.status().waiting_for or ""), self.cloud.heal_seconds)

    def repairs_its_kernel(self, host: Host) -> None:
        """Change what the agent keeps in order, and wait until it is."""
        host.run("sysctl --quiet net.ipv4.ip_forward=0")
        self.lab.eventually(lambda: host.run("sysctl --values net.ipv4.ip_forward").strip() == "1")

    @contextmanager
    def unanswered(self, host: Host) -> Iterator[None]:
        """The API takes connections and answers nothing, and a request of ``host`` lies there unread.

        If one was just being read when the process froze, there is nothing to be seen of it, and the host sends no
        other while it waits: it is thawed until the host has its answer, and frozen at another moment.
        """
        try:
            for _ in range(FREEZES):
                self.is_looked_at(host, times=0)  # which leaves about a second until the next request
                self.cloud.process.freeze()
                if self._has_unread(host):
                    break
                self.cloud.process.thaw()
            else:
                raise LabError(
                    f"no request of {host.name} lies at the API unread, though it was frozen {FREEZES} times"
                )
            yield
        finally:
            self.cloud.process.thaw()

    def _has_unread(self, host: Host) -> bool:
        try:
            return self.lab.eventually(lambda: self.cloud.has_unread(host.machine), UNREAD_SECONDS)
        except LabError:
            return False
