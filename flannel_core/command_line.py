"""Options as Go's flag package writes them, derived from the fields of msgspec structs.

``-name``, ``--name``, ``--name=value``, ``--name value``, or the variable FLANNELD_NAME; a switch stands alone or
takes ``=value``. Where Go reads something else than was meant without a word, this raises UsageError.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin

import msgspec

from .errors import UsageError
from .printable import printable

Kind: TypeAlias = Literal["switch", "integer", "list", "text"]

StructT = TypeVar("StructT", bound=msgspec.Struct)

_BOOLEANS = {
    **dict.fromkeys(("1", "t", "T", "true", "TRUE", "True"), True),
    **dict.fromkeys(("0", "f", "F", "false", "FALSE", "False"), False),
}
_OPTION = re.compile(r"--?([^-=][^=]*)(=(?s:.*))?")
_INTEGER = re.compile(r"[+-]?(0[xX](_?[0-9a-fA-F])+|0[bB](_?[01])+|0[oO](_?[0-7])+|0(_?[0-7])*|[1-9](_?[0-9])*)")
_SHAPES = {IPv4Address: "an IPv4 address", IPv6Address: "an IPv6 address", float: "a number"}


class Option(msgspec.Struct, frozen=True):
    """One option. ``name`` is without dashes, ``field`` the struct's field, ``type`` what its value is converted to,
    ``values`` the only ones possible (empty: any), ``shape`` what its text has to look like (empty: anything),
    ``minimum`` and ``maximum`` bound an integer."""

    name: str
    field: str
    type: Any
    kind: Kind
    default: Any
    required: bool
    description: str
    values: tuple[str, ...] = ()
    minimum: int | None = None
    maximum: int | None = None
    shape: str = ""

    @property
    def variable(self) -> str:
        """The environment variable that stands in for the option: FLANNELD_ and the name, in upper case."""
        return "FLANNELD_" + self.name.upper().replace("-", "_")

    @property
    def expected(self) -> str:
        """What fits, for messages and docs; "" if any text does."""
        if self.kind == "switch":
            return "true or false"
        if self.values:
            return " or ".join(self.values)
        if self.kind != "integer":
            return self.shape
        if self.minimum is not None and self.maximum is not None:
            return f"an integer from {self.minimum} to {self.maximum}"
        return "an integer" if self.minimum is None else f"an integer of at least {self.minimum}"

    @property
    def default_text(self) -> str:
        """The default as it would be written on the command line; "" where there is none."""
        if self.required or self.default is None:
            return ""
        if isinstance(self.default, bool):
            return "true" if self.default else "false"
        if isinstance(self.default, tuple | list):
            return ",".join(map(str, self.default))
        return str(self.default)


class Given(msgspec.Struct, frozen=True):
    """A value as the user wrote it. ``origin`` is how the option was named: ``--iface``, ``FLANNELD_IFACE``."""

    text: str
    origin: str


def options_of(struct: type[msgspec.Struct], prefix: str = "") -> tuple[Option, ...]:
    """The options that the fields of ``struct`` stand for.

    A field ``lease_margin`` is ``PREFIXlease-margin``, or what ``msgspec.Meta(extra={"option": ...})`` says. bool is a
    switch, a tuple or list repeats, int takes Go's base-0 syntax; Path, IPv4Address and IPv6Address are made from
    their text, and what else msgspec converts from text.
    """
    return tuple(_option(field, prefix) for field in msgspec.structs.fields(struct))


def _option(field: msgspec.structs.FieldInfo, prefix: str) -> Option:
    bare, metas = _unwrapped(field.type)
    name = prefix + field.name.replace("_", "-")
    facts: dict[str, Any] = {}
    description = ""
    for meta in metas:
        name = (meta.extra or {}).get("option", name)
        description = meta.description or description
        if bare is int:
            facts |= {key: bound for key, bound in (("minimum", meta.ge), ("maximum", meta.le)) if bound is not None}
    if get_origin(bare) is Literal:
        facts["values"] = tuple(map(str, get_args(bare)))
    required = field.required
    default = None
    if not required:
        default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return Option(
        name=name,
        field=field.name,
        type=Annotated[(bare, *metas)] if metas else bare,  # without None: the text "null" is no way to say it
        kind=_kind(bare),
        default=default,
        required=required,
        description=description,
        shape=_SHAPES.get(bare, ""),
        **facts,
    )


def _unwrapped(hint: Any) -> tuple[Any, list[msgspec.Meta]]:
    """``Annotated[X | None, Meta(...)]``, nested in either order -> X and the Metas, outermost last."""
    if get_origin(hint) is Annotated:
        bare, metas = _unwrapped(get_args(hint)[0])
        return bare, metas + [m for m in get_args(hint)[1:] if isinstance(m, msgspec.Meta)]
    if get_origin(hint) in (Union, UnionType):
        inner = [argument for argument in get_args(hint) if argument is not NoneType]
        if len(inner) == 1:
            return _unwrapped(inner[0])
    return hint, []


def _kind(bare: Any) -> Kind:
    if bare is bool:
        return "switch"
    if bare is int:
        return "integer"
    return "list" if get_origin(bare) in (tuple, list) else "text"


def read_words(
    words: Sequence[str],
    known: Mapping[str, Option],
    *,
    tolerant: bool = False,
    operands: list[str] | None = None,
) -> dict[str, tuple[Given, ...]]:
    """What the command line gives for each option that it names, in order.

    ``tolerant`` leaves out what it does not know, for the look at the line that finds out which store's options are to
    be known. ``operands``, if given, takes the words that belong to no option. Raises UsageError.
    """
    found: dict[str, tuple[Given, ...]] = {}
    rest = list(reversed(words))
    switch = ""
    while rest:
        word = rest.pop()
        parts = _OPTION.fullmatch(word)
        option = known.get(parts[1]) if parts else None
        if option is None or parts is None:
            if operands is not None and parts is None and not (switch and word in _BOOLEANS):
                operands.append(word)
            elif not tolerant and not (word == "--" and not rest):
                raise _stranger(word, parts[1] if parts else "", switch, known)
            continue
        origin = word[: word.index(parts[1])] + option.name
        switch = ""
        if parts[2] is not None:
            text = parts[2][1:]
        elif option.kind == "switch":
            text, switch = "true", origin
        elif not rest:
            raise UsageError(f"{origin} needs a value: {origin}=VALUE")
        elif _names_an_option(rest[-1], known):
            raise UsageError(
                f"{origin} needs a value, and {printable(rest[-1])} is an option itself; "
                f"if it is meant as the value write {origin}={printable(rest[-1])}"
            )
        else:
            text = rest.pop()
        found[option.name] = (*found.get(option.name, ()), Given(text, origin))
    return found


def read_environment(
    environ: Mapping[str, str], known: Iterable[Option], given: Collection[str]
) -> dict[str, tuple[Given, ...]]:
    """What FLANNELD_ variables give for the options that the command line does not. An empty one counts as unset; a
    repeatable option takes the whole value as its one item."""
    return {
        option.name: (Given(environ[option.variable], option.variable),)
        for option in known
        if option.name not in given and environ.get(option.variable)
    }


def decode(struct: type[StructT], options: Iterable[Option], given: Mapping[str, tuple[Given, ...]]) -> StructT:
    """``struct`` with what was given, the defaults elsewhere. Raises UsageError naming option, value and what fits."""
    values: dict[str, Any] = {}
    for option in options:
        if written := given.get(option.name):
            values[option.field] = convert(option, written)
        elif option.required:
            raise UsageError(f"--{option.name} is needed ({option.description or option.variable})")
    return struct(**values)


def convert(option: Option, written: Sequence[Given]) -> Any:
    """The value that ``written`` stands for: all of it for a repeatable option, else the last. Raises UsageError."""
    if option.kind == "list":
        return _typed(option, [given.text for given in written], written[-1])
    return [_typed(option, _plain(option, given), given) for given in written][-1]


def _plain(option: Option, given: Given) -> bool | int | str:
    if option.kind == "switch":
        if given.text not in _BOOLEANS:
            raise _misfit(option, given)
        return _BOOLEANS[given.text]
    if option.kind == "integer":
        value = go_integer(given.text)
        if value is None:
            raise _misfit(option, given)
        return value
    return given.text


def _typed(option: Option, value: object, given: Given) -> Any:
    try:
        return msgspec.convert(value, option.type, strict=False, dec_hook=lambda type_, text: type_(text))
    except msgspec.ValidationError as error:
        raise _misfit(option, given, str(error)) from None


def _misfit(option: Option, given: Given, reason: str = "") -> UsageError:
    why = f"expected {option.expected}" if option.expected else printable(reason, 200)
    return UsageError(f"{given.origin}={printable(given.text)} does not fit: {why}")


def go_integer(text: str) -> int | None:
    """An integer in the syntax of Go's ``strconv.ParseInt(text, 0, 64)``: 60, 0x3c, 0o74, 074, 0b111100, 1_000."""
    if not _INTEGER.fullmatch(text):
        return None
    digits = text.lstrip("+-").replace("_", "")
    octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
    value = int(digits, 8 if octal else 0)
    value = -value if text[0] == "-" else value
    return value if -(1 << 63) <= value < 1 << 63 else None


def _names_an_option(word: str, known: Mapping[str, Option]) -> bool:
    parts = _OPTION.fullmatch(word)
    return parts is not None and parts[1] in known


def _stranger(word: str, name: str, switch: str, known: Mapping[str, Option]) -> UsageError:
    """Why ``word`` cannot stand where it stands; ``switch`` is the switch before it, if there is one."""
    if switch and not name:
        return UsageError(
            f"unexpected '{printable(word)}' after {switch}, which takes no separate word; "
            f"write {switch}={printable(word)} if it is its value"
        )
    if not name:
        return UsageError(f"unexpected '{printable(word)}'; every option begins with a dash (--help lists them)")
    import difflib  # only this message needs it

    near = difflib.get_close_matches(name.lower().replace("_", "-"), known, n=1)
    hint = f"did you mean --{near[0]}?" if near else "--help lists what there is"
    return UsageError(f"unknown option {printable(word.split('=', 1)[0])}; {hint}")
