"""net-conf.json as it comes from the store: the valid configuration to run, or why there is none."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec

from .backend import Backend
from .backend_options import decode_options, unknown_options
from .errors import FlannelError
from .klog import StateLog
from .netconf import NetworkConfig, describe_change, parse_config
from .plugins import load_backend
from .store import ConfigText

log = logging.getLogger(__name__)


class Chosen(msgspec.Struct, frozen=True):
    """A valid configuration with the backend it names, constructed with its options. ``text`` is what it was read
    from."""

    config: NetworkConfig
    backend: Backend[Any, Any]
    text: ConfigText


class ConfigWatch:
    """Takes what the store says; one log line per change of state. All that can be wrong is waited for: another
    configuration, or installing what it names, cures it."""

    def __init__(self, state_directory: Path, *, ranges: bool = True) -> None:
        """``ranges`` False: the subnet lengths and bounds are not looked at (with Kubernetes, as Go)."""
        self.chosen: Chosen | None = None
        """The newest valid configuration; once one is in use, the newest that can take its place while all runs."""
        self.ranges = ranges
        self.source = ""
        self.error: str | None = "there is no network configuration yet"
        """What is wrong with the newest text; None if nothing is."""
        self.pending: str | None = None
        """What only a restart would change, or why the newest configuration could not be applied."""
        self._state_directory = state_directory
        self._in_use = False
        self._said = StateLog(log)

    def use(self, chosen: Chosen) -> None:
        """``chosen`` is in use now: only one that fits what runs replaces it."""
        newest, self.chosen, self._in_use = self.chosen, chosen, True
        if newest is not None and newest is not chosen:
            self._weigh(chosen, newest)

    def take(self, text: ConfigText) -> None:
        """The newest text, or that there is none."""
        self.source = text.source
        try:
            newest = self._choose(text)
        except FlannelError as error:
            self.error = str(error)
            self._said.say("config", logging.WARNING, f"Couldn't fetch network config: {error}")
            return
        self.error = None
        if not self._in_use or self.chosen is None:
            self.chosen = newest
            self._said.say("config", logging.INFO, f"Found network config - Backend type: {newest.config.backend_type}")
            return
        self._weigh(self.chosen, newest)

    def compare(self, newest: Chosen) -> tuple[list[str], bool]:
        """How ``newest`` differs from what is in use, a line for each key, and whether what runs could follow it."""
        if self.chosen is None:
            return [], False
        return describe_change(self.chosen.config, newest.config), _fits_what_runs(self.chosen, newest)

    def _weigh(self, used: Chosen, newest: Chosen) -> None:
        """Take ``newest`` in place of ``used`` if what runs can follow, else name it."""
        self.pending = None
        changes = "; ".join(describe_change(used.config, newest.config))
        if not changes:
            self._said.over("config")
        elif _fits_what_runs(used, newest):
            self.chosen = newest
            self._said.say("config", logging.INFO, f"{self.source} changed, applying it: {changes}")
        else:
            self.pending = (
                f"{self.source} changed; a restart of flanneld applies: {changes}. What that changes on this host: "
                "`flannelctl config show | flannelctl plan --config -`"
            )
            self._said.say("config", logging.WARNING, self.pending)

    def _choose(self, text: ConfigText) -> Chosen:
        if text.text is None:
            raise FlannelError(
                f"{text.source}: there is no network configuration yet; `flannelctl config set FILE` writes one"
            )
        config = parse_config(text.text, text.source, ranges=self.ranges)
        backend_class = load_backend(config.backend_type)
        if unknown := unknown_options(config, backend_class):
            names = ", ".join(unknown)
            self._said.say("keys", logging.WARNING, f"{text.source}: Backend has keys that are not known: {names}")
        options = decode_options(config, backend_class, text.source)
        return Chosen(config, backend_class(options, self._state_directory), text)


def _fits_what_runs(old: Chosen, new: Chosen) -> bool:
    """True if our subnet stays what it is, and everything lives where it does."""
    return (
        old.config.networks == new.config.networks
        and [space and space.subnet_length for space in (old.config.ipv4, old.config.ipv6)]
        == [space and space.subnet_length for space in (new.config.ipv4, new.config.ipv6)]
        and old.config.backend_type == new.config.backend_type
        and not any(
            getattr(old.backend.options, name) != getattr(new.backend.options, name)
            for name in new.backend.restart_options
        )
    )
