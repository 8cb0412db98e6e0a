"""``flannelctl config``: check net-conf.json, show and set the one that stands in a store."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter

from ..config_check import Findings, check
from ..errors import EXIT_FAILED, EXIT_OK, FlannelError, UsageError
from ..flanneld_options import Parsed, StoreChoice, parse_store
from ..netconf import MAX_CONFIG_BYTES
from ..printable import printable
from ..store import ConfigText
from .open_store import open_store
from .output import clean, complain, say, show_json

Words = Annotated[str, Parameter(allow_leading_hyphen=True, show=False)]

app = App(
    name="config",
    help="Check net-conf.json, show and set the one in a store.",
    default_parameter=Parameter(negative=()),
)


@app.command(name="check")
def check_file(file: Annotated[str, Parameter(allow_leading_hyphen=True)], /, *, json: bool = False) -> int:
    """Say everything that is wrong with a network configuration, at once.

    Exit code 0 if flanneld would run with it, 1 if not.

    Parameters
    ----------
    file
        The file to check; - reads standard input.
    json
        Print it as JSON.
    """
    findings = check(*_read(file))
    if json:
        show_json(findings)
    else:
        for line in _lines(findings):
            say(clean(line))
        if findings.ok:
            say(f"{clean(findings.source)}: valid")
    return EXIT_OK if findings.ok else EXIT_FAILED


@app.command(usage="Usage: flannelctl config show [--store NAME] [THE STORE'S OPTIONS]")
def show(*words: Words) -> int:
    """Print the network configuration that stands in a store.

    The store and its options are given as to flanneld, or in the same FLANNELD_ variables; `flanneld --help` lists
    them. Exit code 1 if there is no configuration yet.
    """
    parsed = parse_store(words, os.environ)
    found = asyncio.run(_show(parsed))
    if found.text is None:
        raise FlannelError(f"{found.source}: there is no network configuration yet; `flannelctl config set` writes one")
    if sys.stdout.isatty():
        for line in found.text.splitlines():
            say(printable(line, len(line) * 10))
    else:
        sys.stdout.flush()
        sys.stdout.buffer.write(found.text if found.text.endswith(b"\n") else found.text + b"\n")
    return EXIT_OK


@app.command(name="set", usage="Usage: flannelctl config set FILE [--store NAME] [THE STORE'S OPTIONS]")
def set_config(*words: Words) -> int:
    """Write a network configuration into a store; the FILE - is standard input.

    It is checked first, as `config check` does, and one that flanneld could not run with is not written. The store
    and its options are given as to flanneld, or in the same FLANNELD_ variables; `flanneld --help` lists them.
    """
    files: list[str] = []
    parsed = parse_store(words, os.environ, operands=files)
    if len(files) != 1:
        raise UsageError("config set takes one file, or - for standard input, beside the store's options")
    if "set_config" not in parsed.store_class.capabilities:
        raise FlannelError(
            f"the store {parsed.store_name} holds no configuration that could be set; it is read from elsewhere"
        )
    if (valid := valid_config(files[0])) is None:
        return EXIT_FAILED
    text, source = valid
    asyncio.run(_set(parsed, text))
    say(f"{clean(source)} stands in the store {clean(parsed.store_name)} now")
    return EXIT_OK


def valid_config(file: str) -> tuple[bytes, str] | None:
    """The text and what to call it; None if flanneld could not run with it, and all that is wrong was said. Raises
    FlannelError if it cannot be read."""
    text, source = _read(file)
    findings = check(text, source)
    for line in _lines(findings):
        complain(line)
    return (text, source) if findings.ok else None


def _lines(findings: Findings) -> list[str]:
    return [*map(str, findings.errors), *(f"{findings.source}: warning: {text}" for text in findings.warnings)]


def _read(file: str) -> tuple[bytes, str]:
    """The text and what to call it. Raises FlannelError. Of a longer one than allowed, enough to tell so is read."""
    if file == "-":
        return sys.stdin.buffer.read(MAX_CONFIG_BYTES + 1), "standard input"
    try:
        with Path(file).open("rb") as opened:
            return opened.read(MAX_CONFIG_BYTES + 1), file
    except OSError as error:
        raise FlannelError(f"{file}: cannot be read: {error.strerror or error}") from None


async def _show(parsed: Parsed[StoreChoice]) -> ConfigText:
    async with open_store(parsed) as store:
        async for found in store.config():
            return found
    raise FlannelError(f"the store {parsed.store_name} ended without an answer")


async def _set(parsed: Parsed[StoreChoice], text: bytes) -> None:
    async with open_store(parsed) as store:
        await store.set_config(text)
