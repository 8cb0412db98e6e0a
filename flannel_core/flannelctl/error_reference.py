"""docs/reference/errors.md, exit-codes.md and of net-conf.md the errors: each sentence as the code makes it.

Sentences of net-conf.md come from running the checks over one example of each mistake, those of errors.md from the
``raise`` statements of the source.
"""

from __future__ import annotations

import ast
import json
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ..config_check import check
from ..config_errors import ConfigError
from ..errors import EXIT_FAILED, EXIT_INTERRUPTED, EXIT_OK, EXIT_USAGE

_IPV6 = {"EnableIPv6": True, "IPv6Network": "fd00:5::/48"}
MISTAKES: tuple[dict[str, Any] | str, ...] = (
    {},
    {"Network": "10.5.0.0"},
    {"Network": "fd00:5::/48"},
    {"Network": "10.5.0.0/29"},
    {"SubnetLen": 31},
    {"SubnetLen": 17},
    {"SubnetLen": -1},
    {"SubnetLen": "24"},
    {"Network": "10.5.0.0/29", "SubnetLen": 30},
    {"SubnetMin": "10.6.0.0"},
    {"SubnetMin": "10.5.1.1"},
    {"SubnetMin": "10.5.1"},
    {"SubnetMax": "fd00:5::"},
    {"SubnetMin": "10.5.9.0", "SubnetMax": "10.5.2.0"},
    {"EnableIPv6": True},
    _IPV6 | {"IPv6Network": "10.6.0.0/16"},
    _IPV6 | {"IPv6Network": "fd00:5::/125"},
    _IPV6 | {"IPv6SubnetLen": 127},
    _IPV6 | {"IPv6SubnetLen": 49},
    _IPV6 | {"IPv6SubnetMin": "fd00:6::"},
    _IPV6 | {"IPv6SubnetMin": "fd00:5::1"},
    {"EnableIPv4": False},
    {"EnableIPv6": "yes"},
    {"Backend": ["vxlan"]},
    {"Backend": {}},
    {"Backend": {"Type": 1}},
    {"Backend": {"Type": "vxlam"}},
    {"Backend": {"Type": "vxlan", "VNI": "one"}},
    {"Backend": {"Type": "vxlan", "VNI": 1 << 24}},
    {"Backend": {"Type": "wireguard", "ListenPort": 0}},
    {"Backend": {"Type": "wireguard", "ListenPort": 4500, "ListenPortV6": 4500}},
    "[]",
    '{"Network": "10.5.0.0/16"',
    '{"Network": 10.5.0.0/16}',
    '{"SubnetLen": NaN}',
    "[" * 100_000,
    '{"SubnetLen": ' + "1" * 101 + "}",
    '{"Network": "\xff"}',
    " " * ((1 << 20) + 1),
)
"""What people write, one mistake each: keys beside a valid Network and Backend, or a whole text (latin-1)."""

FEWEST_LETTERS = 5
"""A sentence with no more than that of its own is made of others, which stand by themselves."""

CNI_ERROR = "CniError"
"""Of the CNI plugin: the code of the error object, and the sentence."""

_EXIT_CODES = """\
# Exit codes

Those of the CNI plugin are in [cni.md](cni.md#errors).
"""

_FLANNELD_WAITS = """
`flanneld` waits, with one log line for each change of state and the reason in `flannelctl status`, where Go flannel
ends or is silent: no network configuration yet, one that cannot be used, an unknown or uninstalled `Backend.Type`, a
bad key under `Backend`, no free subnet, a store that does not answer.
"""

_ERRORS = """\
# Errors

What `flanneld` and `flannelctl` end with, and what a status and a log show as waited for: one line, what is wrong and
what would be right. `…` is a path, an address, a name, a reason of the system's. Those of net-conf.json are in
[net-conf.md](net-conf.md#errors); what to do by symptom is in [troubleshooting.md](../how-to/troubleshooting.md).

The code is what a program ends with that cannot go on; where another configuration may cure it, `flanneld` waits
([exit-codes.md](exit-codes.md)). The CNI plugin's is that of its error object ([cni.md](cni.md#errors)).
"""


class Exit(NamedTuple):
    code: int
    when: str
    go: str = ""


FLANNELD = (
    Exit(EXIT_OK, "stopped by SIGTERM or SIGINT, also while it waits for something; the data path stays", "the same"),
    Exit(
        EXIT_OK,
        "another host holds our lease now",
        "the same, for any revoked lease; ours first takes the same subnet again if it is free",
    ),
    Exit(EXIT_OK, "`--help`, `--version`, a `--dry-run` that could be computed", "the same"),
    Exit(
        EXIT_FAILED,
        "what no new network configuration can cure: no root, no such interface, no address on it, a second agent of "
        "the same state directory, a store that cannot be used, a plugin that is not installed or broken, a start-up "
        "command of the extension backend that fails",
        "the same, and for more, see below",
    ),
    Exit(
        EXIT_USAGE,
        "an unknown option, a value that does not fit, a `FLANNELD_` variable that does not fit",
        "prints its usage and exits 0; a bad variable is logged and ignored",
    ),
)
FLANNELCTL = (
    Exit(
        EXIT_OK,
        "done; for `lab`: every pair of containers reached each other; for `config check`, `lease list`: nothing is "
        "wrong; for `cleanup`: nothing of ours is left, whatever else looks like flannel's",
    ),
    Exit(EXIT_FAILED, "not done, or not so; the reason is on stderr"),
    Exit(EXIT_USAGE, "an unknown command or option, a value that does not fit"),
    Exit(128 + 1, "`lab`: its terminal was closed (SIGHUP); it has removed what it made"),
    Exit(EXIT_INTERRUPTED, "interrupted (Ctrl-C); `lab` has removed what it made"),
    Exit(128 + 15, "`lab`: ended by SIGTERM; it has removed what it made"),
)


def exit_code_reference() -> str:
    """The page of the exit codes."""
    agent = "".join(f"| {code} | {when} | {go} |\n" for code, when, go in FLANNELD)
    operator = "".join(f"| {code} | {when} |\n" for code, when, _ in FLANNELCTL)
    return (
        f"{_EXIT_CODES}\n## flanneld\n| code | when | Go flannel |\n|---|---|---|\n{agent}{_FLANNELD_WAITS}"
        f"\n## flannelctl\n| code | when |\n|---|---|\n{operator}"
    )


def config_errors() -> list[ConfigError]:
    """What is said of each of MISTAKES, without what was said of an earlier one."""
    network, backend = {"Network": "10.5.0.0/16"}, {"Backend": {"Type": "vxlan"}}
    texts = [
        (json.dumps(backend | (network | mistake if mistake else {})) if isinstance(mistake, dict) else mistake)
        for mistake in MISTAKES
    ]
    return list(dict.fromkeys(error for text in texts for error in check(text.encode("latin-1"), "FILE").errors))


def config_error_table() -> str:
    """Of net-conf.md. Needs the backends vxlan and wireguard."""
    rows = "".join(
        f"| {f'`{error.key}`' if error.key else 'the text'} | {f'`{error.value}`' if error.value else ''} "
        f"| `{error.reason.strip()}` | {error.cure} |\n"
        for error in config_errors()
    )
    return f"| key | value, such as | what is wrong | what would be right |\n|---|---|---|---|\n{rows}".replace(
        "|  |", "| |"
    )


def error_reference(core: Path, plugins: Mapping[str, Path]) -> str:
    """The page, from the source of flannel_core and of each plugin, by its title. Without what netlink, the lab and
    the kit say: nobody meets the former but who reports a bug, and the latter two are no part of the agent."""
    own = _parsed(core)
    parts = {
        "flanneld": {path: tree for path, tree in own.items() if "flannelctl" not in path.parts},
        "flannelctl": {path: tree for path, tree in own.items() if "flannelctl" in path.parts},
        **{title: _parsed(package) for title, package in plugins.items()},
    }
    kinds = _subclasses({"FlannelError"}, [tree for trees in parts.values() for tree in trees.values()])
    return _ERRORS + "".join(_error_section(title, trees.values(), kinds) for title, trees in parts.items())


def _parsed(package: Path) -> dict[Path, ast.Module]:
    """By the path inside ``package``: what the directories above it are called means nothing."""
    paths = sorted(path.relative_to(package) for path in package.rglob("*.py"))
    return {
        path: ast.parse((package / path).read_text(encoding="utf-8"))
        for path in paths
        if not {"lab", "conformance", "netlink"} & set(path.parts)
    }


def _subclasses(names: set[str], trees: Iterable[ast.Module]) -> set[str]:
    classes = [node for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]
    while True:
        more = {c.name for c in classes if any(isinstance(base, ast.Name) and base.id in names for base in c.bases)}
        if more <= names:
            return names
        names = names | more


def _error_section(title: str, trees: Iterable[ast.Module], kinds: Collection[str]) -> str:
    """Empty where there is nothing to say."""
    trees, rows = list(trees), []
    codes = {kind: EXIT_USAGE if kind == "UsageError" else EXIT_FAILED for kind in kinds}
    constants = _constants(trees)
    for node in (node for tree in trees for node in ast.walk(tree)):
        if isinstance(node, ast.Raise) and isinstance(call := node.exc, ast.Call) and call.args:
            name = call.func.id if isinstance(call.func, ast.Name) else ""
            *named, sentence = call.args[:2] if name == CNI_ERROR else call.args[:1]
            code = constants.get(named[0].id) if named and isinstance(named[0], ast.Name) else codes.get(name)
            if code is not None and (text := _sentence(sentence)):
                rows.append(f"| {_quoted(text)} | {code} |\n")
    table = "".join(dict.fromkeys(rows))
    return f"\n## {title}\n| error | code |\n|---|---|\n{table}" if rows else ""


def _constants(trees: Iterable[ast.Module]) -> dict[str, int]:
    """NAME = number, at the top of a module."""
    return {
        node.targets[0].id: node.value.value
        for tree in trees
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and isinstance(node.value, ast.Constant)
        and type(node.value.value) is int
    }


def _sentence(node: ast.expr) -> str | None:
    """With … for what varies; None where it is made elsewhere, or hardly anything of it is fixed."""
    if isinstance(node, ast.JoinedStr):
        parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
    else:
        parts = [node.value] if isinstance(node, ast.Constant) else []
    text = "".join(str(part) for part in parts).strip()
    return text if sum(map(str.isalpha, text)) > FEWEST_LETTERS else None


def _quoted(text: str) -> str:
    """As code in a table's cell, whatever it holds."""
    text = text.replace("|", "\\|")
    return f"`` {text} ``" if "`" in text else f"`{text}`"
