"""docs/reference: flanneld.md, flannelctl.md, metrics.md, errors.md, exit-codes.md, and of net-conf.md the keys of
Backend and the errors, rendered from the code that they describe.

``python -m flannel_core.flannelctl.reference DIRECTORY`` writes them; a test says when that is due.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, get_args

import msgspec
from cyclopts import App

from ..backend import Backend
from ..backend_options import wanted
from ..command_line import Option, options_of
from ..flanneld_options import QUESTIONS, FlanneldOptions, store_options_of
from ..metrics import METRICS, process_metrics
from ..plugins import load_backend, load_store, names
from ..store import SubnetStore
from .error_reference import config_error_table, error_reference, exit_code_reference
from .main import app

_FLANNELD = """\
# flanneld

The agent of one host. Each option takes one dash or two, `-name=value` or `-name value`; a switch stands alone, or
takes `=true` or `=false` (also 1, t, T, TRUE, True, 0, f, F, FALSE, False). Integers may be written as in Go: `0x3c`,
`0o74`, `1_000`. Each option is also an environment variable; an empty one counts as unset, and the command line wins.
An option that repeats takes the whole variable as one value.

What Go flannel reads otherwise than it was meant, without a word, ends with exit code 2 and a message here: an unknown
option, a value that does not fit, in a variable too, a word after a switch (`--ip-masq false`), a word that belongs to
no option.

Exit codes: [exit-codes.md](exit-codes.md).

"""

VARIABLES = """\

## Other variables
| variable | read by | meaning |
|---|---|---|
| `NOTIFY_SOCKET` | the agent | where systemd wants to hear READY=1 |
| `NODE_NAME` | store `kubernetes` | the node that this host is |
| `POD_NAME`, `POD_NAMESPACE` | store `kubernetes` | the pod that says which node it is, where NODE_NAME is not set |
| `KUBERNETES_SERVICE_HOST`, `KUBERNETES_SERVICE_PORT` | store `kubernetes` | the API server, as every pod is told it |
| `WIREGUARD_KEY_FILE` | backend `wireguard` | the private key, in place of `wgkey` beside subnet.env |
| `AWS_EC2_METADATA_SERVICE_ENDPOINT` | backend `aws-vpc` | as every AWS SDK reads it, beside the SDK's own variables |
| `AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE` | backend `aws-vpc` | the same |
| `GCE_METADATA_HOST` | backend `gce` | another address of the metadata server |
"""

_FLANNELCTL = """\
# flannelctl

The operator's command. It prints tables on a terminal, aligned text in a pipe, and JSON with `--json`. Exit code 0: all
is well; 1: it is not, and the output or one line on stderr says why; 2: wrong usage; 130: interrupted.
"""

_METRICS = """\
# Metrics

`flanneld --healthz-port PORT --metrics` serves them at `/metrics`, beside `/healthz` and `/readyz`, in the text format
of Prometheus. Each scrape reads the agent as it is then; counters begin with zero when the agent starts. `flannelctl
status` tells the same with names and reasons, `flannelctl events` each repair.

"""

_KEYS = "\n## Keys of Backend\n"
_ERRORS = "\n## Errors\n"
_ERROR_TABLE = "\n| key | value, such as |"


def flanneld_reference() -> str:
    """The page of flanneld, up to the stores' sections."""
    questions = "".join(_row(option, variable="") for option in QUESTIONS)
    return f"{_FLANNELD}## Options\n{_table(options_of(FlanneldOptions))}{questions}"


def store_section(name: str, store_class: type[SubnetStore[Any]]) -> str:
    """The page's section on the options of one store, without those that are flanneld's anyway."""
    core = {option.name for option in options_of(FlanneldOptions)}
    own = [option for option in store_options_of(name, store_class) if option.name not in core]
    return f"\n## With `--store {name}`\n{_table(own) if own else 'No further options.'}"


def _table(options: Iterable[Option]) -> str:
    head = "| option | default | variable | meaning |\n|---|---|---|---|\n"
    return head + "".join(_row(option, option.variable) for option in options)


def _row(option: Option, variable: str) -> str:
    bounded = option.values or option.minimum is not None
    meaning = option.description + (f"; {option.expected}" if bounded else "")
    name = f"`--{option.name}`" + (" (switch)" if option.kind == "switch" else "")
    default = f"`{option.default_text}`" if option.default_text else ""
    return f"| {name} | {default} | {f'`{variable}`' if variable else ''} | {meaning} |\n".replace("  |", " |")


def flannelctl_reference() -> str:
    """The page of flannelctl: every command with what its docstring says."""
    from .lab import app as lab  # of the extra [lab]; in `app` stands what loads it when it is called

    commands = [*_commands(app, "flannelctl"), *_command("flannelctl lab", lab)]
    return _FLANNELCTL + "".join(sorted(commands))


def _commands(group: App, path: str) -> Iterator[str]:
    for name in group:
        if not name.startswith("-") and name != "lab":
            yield from _command(f"{path} {name}", group[name])


def _command(path: str, command: App) -> Iterator[str]:
    """The section of a command, if it is one by itself, and those of its subcommands."""
    if command.default_command is not None:
        doc = inspect.getdoc(command.default_command) or ""
        text, _, parameters = doc.partition("\n\nParameters\n----------\n")
        spelt = {argument.field_info.name: argument.names[0] for argument in command.assemble_argument_collection()}
        rows: list[str] = []
        for line in parameters.splitlines():
            if line.startswith(" "):
                rows[-1] += f" {line.strip()}"
            else:
                rows.append(f"| `{spelt[line]}` |")
        table = "\n| parameter | meaning |\n|---|---|\n" + "".join(f"{row} |\n" for row in rows) if rows else ""
        usage = f"`{command.usage.removeprefix('Usage: ')}`\n\n" if command.usage else ""
        yield f"\n## {path}\n{usage}{text}\n{table}"
    yield from _commands(command, path)


def metrics_reference() -> str:
    """The page of the metrics."""
    rows = [
        *((m.name, m.kind, f"`{m.label}`" if m.label else "", m.help) for m in METRICS),
        *(
            (f"{f.name}_total" if f.type == "counter" else f.name, f.type, "", f.documentation.rstrip("."))
            for f in process_metrics()
        ),
    ]
    table = "".join(f"| `{name}` | {kind} | {label} | {help} |\n" for name, kind, label, help in rows)
    return f"{_METRICS}| metric | type | label | meaning |\n|---|---|---|---|\n{table}".replace("|  |", "| |")


def backend_section(name: str, backend_class: type[Backend[Any, Any]]) -> str:
    """What net-conf.md says of the keys that one backend has."""
    fields = msgspec.structs.fields(backend_class.Options)
    table = "| key | value | default | meaning |\n|---|---|---|---|\n" + "".join(map(_key_row, fields))
    return f"\n### {name}\n" + (table if fields else "No keys of its own.\n")


def _key_row(field: msgspec.structs.FieldInfo) -> str:
    meta = next(part for part in get_args(field.type) if isinstance(part, msgspec.Meta))
    default = "required" if field.required else f"`{msgspec.json.encode(field.default).decode()}`"
    return f"| `{field.encode_name}` | {wanted(field.type)} | {default} | {meta.description} |\n"


def net_conf_reference(page: str) -> str:
    """net-conf.md with what the code says in place of the sections under its heading ``Keys of Backend`` and of the
    table at its end; the rest of it is written by hand."""
    head, keys, rest = page.partition(_KEYS)
    introduction = rest.partition("\n### ")[0]
    sections = "".join(backend_section(name, load_backend(name)) for name in names("backend"))
    errors = rest.partition(_ERRORS)[2].partition(_ERROR_TABLE)[0]
    return f"{head}{keys}{introduction}{sections}{_ERRORS}{errors}\n{config_error_table()}"


def all_errors() -> str:
    """The page of the errors: ours, and those of each installed plugin."""
    plugins = {f"Store {name}": package_of(load_store(name)) for name in names("store")}
    plugins |= {f"Backend {name}": package_of(load_backend(name)) for name in names("backend")}
    if cni := find_spec("flannel_cni"):
        plugins["CNI plugin"] = Path(cni.origin or "").parent
    return error_reference(package_of(Backend), plugins)


def package_of(kind: type) -> Path:
    """The directory of the package that ``kind`` is of."""
    return Path(inspect.getfile(kind)).parent


def written(directory: Path) -> dict[str, str]:
    """The pages by name, as the installed code has them; what ``directory`` holds of net-conf.md by hand stays."""
    sections = "".join(store_section(name, load_store(name)) for name in names("store"))
    return {
        "flanneld.md": flanneld_reference() + sections + VARIABLES,
        "flannelctl.md": flannelctl_reference(),
        "metrics.md": metrics_reference(),
        "net-conf.md": net_conf_reference((directory / "net-conf.md").read_text(encoding="utf-8")),
        "errors.md": all_errors(),
        "exit-codes.md": exit_code_reference(),
    }


if __name__ == "__main__":
    for name, text in written(Path(sys.argv[1])).items():
        Path(sys.argv[1], name).write_text(text, encoding="utf-8")
