"""flannel for Python: a layer 3 network fabric for containers.

Import what you need from its modules; this package itself imports nothing, so that the agent pays only
for what it runs. Authors of plugins start at ``flannel_core.hookspecs``.
"""

__version__ = "0.1.0"
