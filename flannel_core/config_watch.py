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
    """A valid configuration with the backend it names, constructed with its options."""

    config: NetworkConfig
    backend: Backend[Any, Any]


class ConfigWatch:
    """Takes what the store says; one log line per change of state. All that can be wrong is waited for: another
    configuration, or installing what it names, cures it."""

    def __init__(self, state_directory: Path, *, ranges: bool = True) -> None:
        """``ranges`` False: the subnet lengths and bounds are not looked at (with Kubernetes, as Go)."""
        self.chosen: Chosen | None = None
        """The newest valid configuration until :meth:`freeze`, the one in use from then on."""
        self.source = ""
        self.error: str | None = "there is no network configuration yet"
        """What is wrong with the newest text; None if nothing is."""
        self.pending: str | None = None
        """What a restart would change, because the configuration changed after it was taken into use."""
        self._state_directory = state_directory
        self._ranges = ranges
        self._frozen = False
        self._said = StateLog(log)

    def freeze(self) -> None:
        """The chosen configuration is in use now; a later one is named and does not replace it."""
        self._frozen = True

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
        if not self._frozen or self.chosen is None:
            self.chosen = newest
            self._said.say("config", logging.INFO, f"Found network config - Backend type: {newest.config.backend_type}")
            return
        changes = describe_change(self.chosen.config, newest.config)
        self.pending = (
            f"{text.source} changed; a restart of flanneld applies: {'; '.join(changes)}" if changes else None
        )
        if self.pending:
            self._said.say("config", logging.WARNING, self.pending)

    def _choose(self, text: ConfigText) -> Chosen:
        if text.text is None:
            raise FlannelError(
                f"{text.source}: there is no network configuration yet; `flannelctl config set FILE` writes one"
            )
        config = parse_config(text.text, text.source, ranges=self._ranges)
        backend_class = load_backend(config.backend_type)
        if unknown := unknown_options(config, backend_class):
            names = ", ".join(unknown)
            self._said.say("keys", logging.WARNING, f"{text.source}: Backend has keys that are not known: {names}")
        options = decode_options(config, backend_class, text.source)
        return Chosen(config, backend_class(options, self._state_directory))
