"""A flannel network on one machine: virtual hosts, each with its own agent, kernel tables and pod.

    with Lab() as lab:
        a, b = lab.hosts(2, backend="vxlan")
        a.run(f"ip route del {b.subnet}")
        lab.eventually(lambda: a.pings(b))

Needs root and the ``ip`` command. Everything is made in network namespaces of the lab's own; the machine's interfaces,
rules and routes are never touched.
"""

from .hosts import Host
from .lab import Lab, PingResult
from .network import LabError

__all__ = ["Host", "Lab", "LabError", "PingResult"]
