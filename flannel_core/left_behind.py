"""What an earlier run with another backend put elsewhere than into the kernel: who can still reach it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import msgspec

from .errors import FlannelError
from .ownership import Owned
from .plugins import load_backend
from .target import Target


def recorded(options: msgspec.Struct) -> str:
    """What of a backend's options goes on record, as JSON: all but those whose Meta says ``extra={"secret": True}``."""
    fields = [field for field in msgspec.structs.fields(options) if not _is_secret(field.type)]
    return msgspec.json.encode({field.encode_name: getattr(options, field.name) for field in fields}).decode()


def _is_secret(kind: Any) -> bool:
    metas = get_args(kind)[1:] if get_origin(kind) is Annotated else ()
    return any(isinstance(meta, msgspec.Meta) and (meta.extra or {}).get("secret") for meta in metas)


def targets_left_behind(owned: Owned, here: Collection[str], directory: Path) -> tuple[list[Target], list[str]]:
    """The targets, other than those named ``here``, at which ``owned`` says that something of ours is; and a sentence
    for each backend on record that cannot be asked for its targets any more."""
    missing = owned.records.keys() - here
    found: list[Target] = []
    lost: list[str] = []
    for name, options in owned.backends.items() if missing else ():
        try:
            backend_class = load_backend(name)
            backend = backend_class(msgspec.json.decode(options, type=backend_class.Options), directory)
            found += [target for target in backend.targets() if target.name in missing]
        except (FlannelError, msgspec.MsgspecError) as error:
            lost.append(f"What backend {name} has left behind stays: {error}")
    return found, lost
