"""The agent's log: klog's line shape or JSON, one record a line whatever is in it; and states that are said once."""

from __future__ import annotations

import logging
import os
import sys
import time
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

import msgspec

from .printable import printable

LogFormat = Literal["text", "json"]

OURS = "flannel"
"""What the names of our loggers and of every plugin's begin with. -v makes these talk, not the libraries below them,
whose debug lines hold credentials."""


SILENT: ContextVar[bool] = ContextVar("SILENT", default=False)
"""True in what only tries out: its lines would be taken for what was done."""


def configure(format: LogFormat = "text", verbosity: int = 0) -> None:
    """Send every logger of this process to stderr as ``format``, from INFO up; with ``verbosity`` (-v) above 0 also
    our own DEBUG lines."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(TextFormatter() if format == "text" else JsonFormatter())
    handler.addFilter(_is_to_be_said)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.DEBUG if verbosity > 0 else logging.INFO)
    # What no line shows is not worth finding out for each record; a full disk behind stderr is no reason to shout.
    logging.logThreads = logging.logProcesses = logging.logMultiprocessing = logging.raiseExceptions = False
    logging.captureWarnings(True)


def _is_to_be_said(record: logging.LogRecord) -> bool:
    return not SILENT.get() and (record.levelno >= logging.INFO or record.name.startswith(OURS))


def message_of(record: logging.LogRecord) -> str:
    """The record's text, then its exception's type, text and place (never a traceback), on one line."""
    message = record.getMessage()
    if record.exc_info and (error := record.exc_info[1]) is not None:
        message = f"{message}: {type(error).__name__}: {error}{_raised_at(error)}"
    # An escape takes at most ten characters, so this cuts nothing.
    return message if message.isprintable() else printable(message, 10 * len(message))


def _raised_at(error: BaseException) -> str:
    trace = error.__traceback__
    if trace is None:
        return ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    return f" (raised at {Path(trace.tb_frame.f_code.co_filename).name}:{trace.tb_lineno})"


class TextFormatter(logging.Formatter):
    """klog's header: ``I1124 08:49:30.237197   18212 main.go:228] message``. Local time, microseconds, the process id
    (where klog has the thread's) seven wide."""

    LETTERS = ((logging.CRITICAL, "F"), (logging.ERROR, "E"), (logging.WARNING, "W"))

    def format(self, record: logging.LogRecord) -> str:
        letter = next((letter for level, letter in self.LETTERS if record.levelno >= level), "I")
        when = time.strftime("%m%d %H:%M:%S", time.localtime(record.created))
        microseconds = int(record.created % 1 * 1_000_000)
        place = f"{record.filename}:{record.lineno}"
        return f"{letter}{when}.{microseconds:06d} {os.getpid():7d} {place}] {message_of(record)}"


class JsonFormatter(logging.Formatter):
    """One JSON object a line: ts (RFC 3339, UTC), level, logger, msg, file, line, pid."""

    def format(self, record: logging.LogRecord) -> str:
        fields = {
            "ts": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="microseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "msg": message_of(record),
            "file": record.filename,
            "line": record.lineno,
            "pid": os.getpid(),
        }
        return msgspec.json.encode(fields).decode()


class StateLog:
    """One line per change of state: what keeps being so is said once, and its end only if its beginning was."""

    def __init__(self, log: logging.Logger) -> None:
        self._log = log
        self._said: dict[str, str] = {}

    def say(self, subject: str, level: int, text: str) -> bool:
        """Log ``text`` unless it is what was last said about ``subject``. True if it was logged."""
        if self._said.get(subject) == text:
            return False
        self._said[subject] = text
        self._log.log(level, "%s", text, stacklevel=2)
        return True

    def over(self, subject: str, text: str = "") -> bool:
        """Forget ``subject``; log ``text``, if there is any, at INFO if something had been said. True if it had."""
        if self._said.pop(subject, None) is None:
            return False
        if text:
            self._log.info("%s", text, stacklevel=2)
        return True
