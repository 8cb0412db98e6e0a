"""``flannelctl plugins``."""

from __future__ import annotations

from ..errors import EXIT_FAILED, EXIT_OK
from ..plugins import list_plugins
from .output import say, show_json, show_table


def plugins(*, json: bool = False) -> int:
    """List every installed backend and store, and why one cannot be used.

    Exit code 1 if one of them is broken or doubled.

    Parameters
    ----------
    json
        Print it as JSON.
    """
    found = list_plugins()
    if json:
        show_json(found)
    elif found:
        show_table(
            ("KIND", "NAME", "VERSION", "DISTRIBUTION", "ERROR"),
            [(p.kind, p.name, p.version, p.distribution, p.error or "") for p in found],
        )
    else:
        say("No plugin is installed; one extra each brings them: pip install 'flannel-core[all]'")
    return EXIT_FAILED if any(plugin.error for plugin in found) else EXIT_OK
