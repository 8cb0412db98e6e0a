"""Everything that is wrong with a net-conf.json, the keys of its backend included."""

from __future__ import annotations

import json

import msgspec

from .backend_options import decode_options, unknown_options
from .config_errors import ConfigError, ConfigInvalid, shown
from .netconf import check_config, parse_config
from .plugins import PluginBroken, PluginMissing, load_backend


class Findings(msgspec.Struct, frozen=True):
    """``errors`` keep flanneld from running with it, ``warnings`` do not. ``source`` names the text."""

    source: str
    ok: bool
    errors: tuple[ConfigError, ...] = ()
    warnings: tuple[str, ...] = ()


def check(text: bytes, source: str) -> Findings:
    """All at once: what is wrong with the core's keys hides nothing that is wrong with the backend's. Imports the
    backend's plugin."""
    errors = check_config(text, source)
    warnings: list[str] = []
    try:
        config = parse_config(_backend_alone(text), source)
        try:
            backend = load_backend(config.backend_type)
            warnings = [f"Backend.{key} is not known and has no effect" for key in unknown_options(config, backend)]
            decode_options(config, backend, source)
        except (PluginMissing, PluginBroken) as error:
            reason, _, cure = str(error).partition("; ")
            value = shown("Backend.Type", config.backend_type)
            errors.append(ConfigError(source, "Backend.Type", value, reason, cure or "mend or replace the plugin"))
        except ConfigInvalid as error:
            errors.extend(error.errors)
    except ConfigInvalid:
        pass  # not even the backend's type can be read, and check_config said so
    return Findings(source, not errors, tuple(errors), tuple(warnings))


def _backend_alone(text: bytes) -> bytes:
    """The same "Backend" in a configuration that has nothing else that could be wrong; ``text`` where it is no
    object."""
    try:
        tree = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(tree, dict):
        return text
    backend = {key: value for key, value in tree.items() if key.casefold() == "backend"}
    return json.dumps({"Network": "10.0.0.0/8"} | backend).encode()
