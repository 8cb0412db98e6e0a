"""The entry point of flannelctl: its commands, and how each kind of failure ends."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from .. import __version__
from ..errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE, FlannelError
from .cleanup_command import cleanup
from .config_command import app as config_app
from .docker_options_command import docker_options
from .events_command import events
from .install_cni_command import install_cni
from .lease_command import app as lease_app
from .output import complain
from .plan_command import plan
from .plugins_command import plugins
from .status_command import status

app = App(
    name="flannelctl",
    help="Look into, check and try out flannel on this host.",
    help_format="plaintext",
    version=__version__,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
app.command(status)
app.command(plan)
app.command(events)
app.command(plugins)
app.command(cleanup)
app.command(docker_options)
app.command(install_cni)
app.command(config_app)
app.command(lease_app)


@app.command(help_flags=(), version_flags=())
def lab(*words: Annotated[str, Parameter(allow_leading_hyphen=True)]) -> Any:
    """Build a flannel network of virtual hosts on this machine and ping through it."""
    # Only the lab pays for what the lab imports, and only the lab fails where that is not installed.
    try:
        from .lab import app as lab_app
    except ModuleNotFoundError as error:
        raise FlannelError(f"the lab needs what is not installed: {error}; pip install 'flannel-core[lab]'") from None
    whole = App(name="flannelctl", suppress_keyboard_interrupt=False)
    whole.command(lab_app)
    return _run(whole, ["lab", *words])


def _run(which: App, words: Sequence[str] | None) -> Any:
    return which(words, exit_on_error=False, print_error=False, result_action="return_value")


def main(argv: Sequence[str] | None = None) -> int:
    """Run flannelctl with ``argv`` (without the program's name; None: the process's) and return its exit code.

    No exception leaves it: a FlannelError is one line on stderr, wrong usage is exit code 2.
    """
    try:
        result = _run(app, None if argv is None else list(argv))
        sys.stdout.flush()
        return result if isinstance(result, int) else EXIT_OK
    except FlannelError as error:
        complain(str(error))
        return error.exit_code
    except CycloptsError as error:
        complain(" ".join(str(error).split()) + " (--help shows what there is)")
        return EXIT_USAGE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        # The reader of our pipe went away (`| head`). What is still buffered would fail again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_FAILED
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        complain(
            f"a mistake of flannelctl itself, please report it: {type(error).__name__}: {error} "
            f"({place.filename}:{place.lineno})"
        )
        return EXIT_FAILED
