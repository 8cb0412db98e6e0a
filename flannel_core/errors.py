"""The one exception a user may see, and the exit codes of flanneld and flannelctl."""

from __future__ import annotations

EXIT_OK = 0
"""Stopped as asked (SIGINT, SIGTERM), ``--version``, ``--help``, or the lease was taken by another host (as Go)."""
EXIT_FAILED = 1
"""What no new network configuration can cure: no root, no such interface, a second agent, a broken store."""
EXIT_USAGE = 2
"""An unknown option or a value that does not fit it (Go flannel prints its usage and exits 0)."""
EXIT_INTERRUPTED = 130
"""flannelctl after Ctrl-C: 128 + SIGINT, as shells say it."""


class FlannelError(Exception):
    """Something a user has to be told: what is wrong, where, and what would be right.

    ``str(error)`` is the whole message, on one line where possible. ``exit_code`` is what a program ends with when
    nothing up the stack can go on without it.
    """

    exit_code = EXIT_FAILED


class CannotGoOn(FlannelError):
    """Raised by a backend's ``prepare`` or a target's ``write``: not to be waited for, the agent ends. For what users
    of Go flannel expect to end it; everything else is a FlannelError, and another configuration may cure it."""


class UsageError(FlannelError):
    """The command line or a FLANNELD_ variable does not fit."""

    exit_code = EXIT_USAGE
