"""The difference between what is wanted and what is there, and what of it may be taken away. Pure."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Literal

import msgspec

from ..objects import Identity, Link, Object, OtherLink
from .desired import Desired

UNWANTED = "nothing wants it any more"
NO_PRUNING = "nothing is removed before the store has listed the leases, ours among them"


class PlannedChange(msgspec.Struct, frozen=True):
    """One write that would be made. ``cause``: the lease or setting it follows from. ``previous``: what stands there
    now. ``held``: why it is not made for now, None if it is about to be."""

    action: Literal["create", "change", "remove"]
    object: Object
    cause: str
    previous: Object | None = None
    held: str | None = None


def is_of_our_making(have: Object | None) -> bool:
    """False for nothing, and for a device of a type that nobody here makes, whatever its name."""
    return have is not None and not (isinstance(have, Link) and isinstance(have.info, OtherLink))


def removals(unwanted: Iterable[Object], devices: Collection[str]) -> list[Object]:
    """Which of ``unwanted`` are to be removed: of devices, only those on record (``devices``) and of our types."""
    return [
        have
        for have in unwanted
        if have.removable and (not isinstance(have, Link) or (have.name in devices and is_of_our_making(have)))
    ]


def deviations(want: msgspec.Struct, have: msgspec.Struct) -> str:
    """Which fields of ``have`` are not as wanted, for a person: ``mtu is 1430 instead of 1450``. A field that is None
    or 0 in ``want`` may have any value."""
    found = []
    for field in want.__struct_fields__:
        wanted = getattr(want, field)
        present: Any = getattr(have, field, None)
        if wanted == present or wanted is None or (wanted == 0 and wanted is not False):
            continue
        if isinstance(wanted, msgspec.Struct) and type(wanted) is type(present):
            found.append(deviations(wanted, present))
        else:
            found.append(f"{field} is {present} instead of {wanted}")
    return ", ".join(found)


def plan(
    desired: Desired,
    actual: Mapping[object, Mapping[Identity, Object]],
    kinds: Iterable[object],
    devices: Collection[str],
    *,
    pruning: bool,
    waiting: Callable[[Identity], str | None],
) -> list[PlannedChange]:
    """What a pass would write, in its order, if ``actual`` (by kind) is what there is.

    ``kinds`` are in the order in which they are put. ``waiting`` tells why nothing is tried there for now.
    """
    kinds = tuple(kinds)
    changes: list[PlannedChange] = []
    remade: set[str | None] = set()
    blocked: set[str | None] = set()
    for kind in kinds:
        for identity, claim in desired.of_kind(kind).items():
            want, have = claim.object, actual[kind].get(identity)
            if have is not None and have.on_device in remade:
                have = None
            if have is not None and want.satisfied_by(have):
                continue
            held = waiting(identity)
            if isinstance(want, Link):
                if have is not None and not is_of_our_making(have):
                    held = held or f"{have.describe()} has its name: rename it or delete it"
                    blocked.add(want.name)
                elif not isinstance(have, Link) or want.must_be_remade(have):
                    remade.add(want.name)
            elif want.on_device in blocked:
                held = held or f"{want.on_device} has to be made first"
            changes.append(
                PlannedChange("create" if have is None else "change", want, desired.cause(claim), have, held)
            )
    unwanted = [
        have for kind in reversed(kinds) for identity, have in actual[kind].items() if desired.get(identity) is None
    ]
    held = None if pruning else NO_PRUNING
    return changes + [PlannedChange("remove", have, UNWANTED, have, held) for have in removals(unwanted, devices)]
