"""How a patch changes an object: JSON merge patch (RFC 7396) and Kubernetes' strategic merge patch.

Pure. Objects are JSON as Python has it; nothing that is passed in is changed.
https://kubernetes.io/docs/tasks/manage-kubernetes-objects/update-api-object-kubectl-patch/
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]

MERGE_KEYS: dict[tuple[str, ...], str] = {
    ("metadata", "finalizers"): "",
    ("metadata", "ownerReferences"): "uid",
    ("spec", "podCIDRs"): "",
    ("status", "addresses"): "type",
    ("status", "conditions"): "type",
}
"""Lists of a node that a strategic merge patch adds to, and what tells their elements apart ("": the value itself).
``patchStrategy`` and ``patchMergeKey`` in the API's description of Node; any other list is replaced."""


class PatchError(Exception):
    """The patch does not fit the object."""


def json_merge(original: Any, patch: Any) -> Any:
    """RFC 7396: objects are merged, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    merged: Json = dict(original) if isinstance(original, dict) else {}
    for name, value in patch.items():
        if value is None:
            merged.pop(name, None)
        else:
            merged[name] = json_merge(merged.get(name), value)
    return merged


def strategic_merge(original: Json, patch: Json, path: tuple[str, ...] = ()) -> Json:
    """As ``json_merge``, but the lists of MERGE_KEYS are merged too, and ``$patch``, ``$setElementOrder/`` and
    ``$deleteFromPrimitiveList/`` are obeyed. ``path`` is where ``original`` stands in its object. Raises PatchError."""
    directive = patch.get("$patch")
    if directive == "delete":
        return {}
    if directive == "replace":
        return {name: value for name, value in patch.items() if name != "$patch"}
    if directive not in (None, "merge"):
        raise PatchError(f"Unknown patch type found: {directive}")
    merged = dict(original)
    for name, unwanted in patch.items():
        if name.startswith("$deleteFromPrimitiveList/"):
            target = name.partition("/")[2]
            merged[target] = [value for value in merged.get(target, []) if value not in unwanted]
    for name, value in patch.items():
        here = (*path, name)
        if name.startswith("$"):
            continue
        if value is None:
            merged.pop(name, None)
        elif isinstance(value, dict):
            before = merged.get(name)
            merged[name] = strategic_merge(before if isinstance(before, dict) else {}, value, here)
        elif isinstance(value, list) and here in MERGE_KEYS and name in original:
            order = patch.get(f"$setElementOrder/{name}")
            merged[name] = _merge_list(merged.get(name, []), value, MERGE_KEYS[here], here, order)
        else:
            merged[name] = value
    return merged


def _merge_list(
    original: list[Any], patch: list[Any], key: str, path: tuple[str, ...], order: list[Any] | None
) -> list[Any]:
    def identity(element: Any) -> Any:
        if not key:
            return element
        if not isinstance(element, dict) or key not in element:
            raise PatchError(f"map: {element} does not contain declared merge key: {key}")
        return element[key]

    elements = {identity(element): element for element in original}
    wanted: list[Any] = []
    for element in patch:
        directive = element.get("$patch") if isinstance(element, dict) else None
        if directive == "replace":
            rest = [e for e in patch if not (isinstance(e, dict) and "$patch" in e)]
            return [{name: value for name, value in e.items() if value is not None} for e in rest]
        name = identity(element)
        if directive == "delete":
            elements.pop(name, None)
            continue
        wanted.append(name)
        elements[name] = strategic_merge(elements.get(name, {}), element, path) if key else element
    if order is not None:
        wanted = [identity(element) for element in order if identity(element) in elements]
    return [elements[name] for name in _ordered(list(map(identity, original)), list(elements), wanted)]


def _ordered(original: list[Any], present: list[Any], wanted: list[Any]) -> list[Any]:
    """What the patch names stands in its order, the rest in that of the original; of the two, what came first in the
    original comes first, and what is new before the rest."""
    rest = [name for name in present if name not in wanted]
    wanted = list(dict.fromkeys(wanted))
    merged: list[Any] = []
    while rest and wanted:
        both = rest[0] in original and wanted[0] in original
        merged.append((rest if both and original.index(rest[0]) < original.index(wanted[0]) else wanted).pop(0))
    return merged + rest + wanted
