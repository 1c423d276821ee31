"""Options declared once: the fields of a frozen dataclass are the command's flags, its checks and what a record keeps.

    @dataclass(frozen=True)
    class FlightOptions:
        scene: str = option(positional=True, help="scene name")
        height: float = option(50.0, check=positive, help="above ground, metres")
        device: str = option("auto", decides=False, help="auto, cpu, cuda")

    add_options(parser, FlightOptions)
    options = options_from(FlightOptions, parser.parse_args())
    kept = deciding(options)        # {"scene": ..., "height": ...}: what decides the result

A field whose type is such a dataclass contributes its fields as flags of their own.
"""

from __future__ import annotations

import argparse
import dataclasses
import math
import types
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Check = Callable[[str, Any], None]
_KEY = "option"
# Of parsed arguments: the options that the command line named.
_NAMED = "named_options"
_PLAIN = (str, int, float, Path)


@dataclasses.dataclass(frozen=True)
class Declaration:
    """What `option` was told of a field; see there."""

    help: str
    flags: tuple[str, ...] = ()
    choices: Collection[str] | None = None
    check: Check | None = None
    decides: bool = True
    positional: bool = False
    lower: bool = False
    metavar: str | tuple[str, ...] | None = None
    group: str | None = None


def option(
    default: Any = dataclasses.MISSING,
    *,
    default_factory: Any = dataclasses.MISSING,
    help: str,
    flags: tuple[str, ...] = (),
    choices: Collection[str] | None = None,
    check: Check | None = None,
    decides: bool = True,
    positional: bool = False,
    lower: bool = False,
    metavar: str | tuple[str, ...] | None = None,
    group: str | None = None,
) -> Any:
    """A dataclass field that is also a flag.

    Args:
        default, default_factory: as in `dataclasses.field`; neither: the flag is required.
        flags: short forms, such as ("-lr",).
        choices: the values a text may have; checked with a message that names them.
        check: called with the flag's name and the value when it is not None; raises ValueError.
        decides: whether the value changes the result of the command. Only such options are kept in records.
        positional: an argument without a name.
        lower: the text is lowered before it is looked at.
        group: title of the help's section from this field on.
    """
    declaration = Declaration(help, tuple(flags), choices, check, decides, positional, lower, metavar, group)
    return dataclasses.field(default=default, default_factory=default_factory, metadata={_KEY: declaration})


def positive(name: str, value: Any) -> None:
    """A check: every number is finite and above zero."""
    if not all(math.isfinite(v) and v > 0 for v in _numbers(value)):
        raise ValueError(f"{name} must be positive, got {_shown(value)}")


# What numpy, torch and the solver all take.
LARGEST_SEED = 2**63 - 1


def between(low: float, high: float) -> Check:
    """A check: every number lies in [low, high]."""

    def check(name: str, value: Any) -> None:
        if not all(low <= v <= high for v in _numbers(value)):
            raise ValueError(f"{name} must lie in [{low:g}, {high:g}], got {_shown(value)}")

    return check


def increasing_positive(name: str, value: Any) -> None:
    """A check: two positive numbers, the first not above the second."""
    low, high = value
    if not 0 < low <= high < math.inf:
        raise ValueError(f"{name} must be two increasing positive numbers, got {_shown(value)}")


def add_options(parser: argparse.ArgumentParser, cls: type, place: Any = None) -> None:
    """Adds the fields of a dataclass as flags; fields declared without `option` are left to the command.

    Args:
        place: section of the help that the fields go to until one declares its own.
    """
    place = parser if place is None else place
    for field, hint in _fields(cls):
        declaration = field.metadata.get(_KEY)
        if declaration is not None and declaration.group is not None:
            place = parser.add_argument_group(declaration.group)
        if declaration is None:
            if dataclasses.is_dataclass(hint):
                add_options(parser, hint, place)
            continue
        _add_flag(place, field, hint, declaration)


def options_from(
    cls: type[T], args: argparse.Namespace, *, defaults: Mapping[str, Any] = types.MappingProxyType({}), **fields: Any
) -> T:
    """The dataclass with the values of parsed arguments; `fields` replace or complete them.

    Args:
        defaults: by option, what it is instead of its declared default where the command line does not say; options of
            nested dataclasses among them.
    Raises:
        ValueError: a value is not among the choices or fails its check; names the flag.
    """
    values: dict[str, Any] = {}
    for field, hint in _fields(cls):
        if field.name in fields:
            values[field.name] = fields[field.name]
        elif _KEY in field.metadata:
            left_out = field.name not in getattr(args, _NAMED, ())
            value = defaults[field.name] if left_out and field.name in defaults else getattr(args, field.name)
            values[field.name] = tuple(value) if isinstance(value, list) else value
        elif dataclasses.is_dataclass(hint):
            values[field.name] = options_from(hint, args, defaults=defaults)
    options = cls(**values)
    check(options)
    return options


def check(options: Any) -> None:
    """Checks every declared field of a dataclass; ValueError names the flag, the value and the choices."""
    for field, hint in _fields(type(options)):
        value = getattr(options, field.name)
        declaration = field.metadata.get(_KEY)
        if declaration is None:
            if dataclasses.is_dataclass(hint):
                check(value)
            continue
        if value is None:
            continue
        shown = field.name if declaration.positional else f"--{field.name}"
        if declaration.choices is not None:
            for word in value if isinstance(value, tuple) else (value,):
                if word not in declaration.choices:
                    raise ValueError(f"unknown {shown} {word!r}; choose from {sorted(declaration.choices)}")
        if declaration.check is not None:
            declaration.check(shown, value)


def deciding(options: Any) -> dict[str, Any]:
    """The fields that decide the result, by name, those of nested dataclasses among them."""
    kept: dict[str, Any] = {}
    for field, hint in _fields(type(options)):
        declaration, value = field.metadata.get(_KEY), getattr(options, field.name)
        if declaration is None:
            if dataclasses.is_dataclass(hint):
                kept.update(deciding(value))
        elif declaration.decides:
            kept[field.name] = value
    return kept


def from_record(cls: type[T], values: Mapping[str, Any], what: str) -> T:
    """A dataclass from its JSON form: lists become tuples; ValueError naming `what` for unknown or missing fields."""
    names = {field.name for field in dataclasses.fields(cls)}
    required = {f.name for f in dataclasses.fields(cls) if f.default is f.default_factory is dataclasses.MISSING}
    foreign, missing = sorted(set(values) - names), sorted(required - set(values))
    if foreign or missing:
        raise ValueError(f"{what}: unknown fields {foreign}, missing fields {missing}")
    return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})


class _Noting(argparse.Action):
    """Stores a value, or True for a flag without one, and notes that the command line named the option."""

    def __call__(self, parser, namespace, values, option_string=None):
        setattr(namespace, self.dest, True if self.nargs == 0 else values)
        setattr(namespace, _NAMED, {*getattr(namespace, _NAMED, ()), self.dest})


def _fields(cls: type) -> Iterator[tuple[dataclasses.Field, Any]]:
    hints = typing.get_type_hints(cls)
    for field in dataclasses.fields(cls):
        yield field, _without_none(hints[field.name])


def _without_none(hint: Any) -> Any:
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    return hint


def _add_flag(place: Any, field: dataclasses.Field, hint: Any, declaration: Declaration) -> None:
    default = field.default_factory() if field.default_factory is not dataclasses.MISSING else field.default
    required = default is dataclasses.MISSING
    text = declaration.help.replace("%", "%%")
    if declaration.choices is not None:
        text += f": {', '.join(sorted(declaration.choices))}"
    if not required and default not in (None, False, "", ()):
        text += f" (default {_shown(default)})".replace("%", "%%")
    if declaration.positional:
        place.add_argument(field.name, type=hint if hint in _PLAIN else str, help=text)
        return
    names = (f"--{field.name}", *declaration.flags)
    keywords: dict[str, Any] = {"help": text, "dest": field.name, "required": required}
    if hint is bool:
        place.add_argument(*names, action=_Noting, nargs=0, default=False, **keywords)
        return
    if typing.get_origin(hint) is tuple:
        kinds = typing.get_args(hint)
        keywords["nargs"] = "+" if Ellipsis in kinds else len(kinds)
        hint = kinds[0]
    convert = {kind: kind for kind in _PLAIN}[hint]
    place.add_argument(
        *names,
        action=_Noting,
        type=str.lower if declaration.lower else convert,
        default=None if required else default,
        metavar=declaration.metavar,
        **keywords,
    )


def _numbers(value: Any) -> tuple:
    return value if isinstance(value, tuple) else (value,)


def _shown(value: Any) -> str:
    return " ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in _numbers(value))
