"""Dataclasses of numbers as JSON and back, every type checked, keys of tables included."""

from __future__ import annotations

import dataclasses
import functools
import math
import types
import typing
from typing import Any, Literal, TypeVar

import numpy as np

from ttcjax.eval.stats.draws import Drawn
from ttcjax.runtime.errors import UserError

T = TypeVar("T")
PLACES = 6
"""Decimals that are kept of a number."""


def key(name: str) -> dict[str, str]:
    """Return metadata of a field that JSON calls otherwise, for names that Python reserves."""
    return {"key": name}


def encode(value: Any, places: int = PLACES) -> Any:
    """Return JSON's own types: NaN as null, draws with their estimates as they are.

    A field of a dataclass that has its default is left out.

    Args:
        value: Dataclasses, tables, lists, arrays and scalars.
        places: Decimals of floats.
    """
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        kept = ((field, getattr(value, field.name)) for field in dataclasses.fields(value))
        return {_key(field): encode(item, places) for field, item in kept if not _is_default(field, item)}
    if isinstance(value, dict):
        return {str(key): encode(item, places) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [encode(item, places) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Drawn) and math.isfinite(value):
        return value.rounded(places)
    if isinstance(value, float):
        return round(value, places) if math.isfinite(value) else None
    return value


def decode(kind: type[T], value: Any, path: str) -> T:
    """Return what `encode` was given, of that type, with `PLACES` decimals.

    Args:
        kind: A dataclass.
        value: JSON's own types.
        path: What they are called in errors.

    Raises:
        UserError: A field is missing or not known, or a value has another type.
    """
    return _decode(kind, value, path)


def _key(field: dataclasses.Field[Any]) -> str:
    return field.metadata.get("key", field.name)


def _is_default(field: dataclasses.Field[Any], value: Any) -> bool:
    default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
    if default is dataclasses.MISSING:
        return False
    if isinstance(default, float) and math.isnan(default):
        return isinstance(value, float) and math.isnan(value)
    return type(value) is type(default) and value == default


@functools.cache
def _fields(kind: type) -> dict[str, tuple[str, Any, bool]]:
    """Return the name, the type and whether it has a default of every field of a dataclass, by its name in JSON."""
    hints = typing.get_type_hints(kind)
    return {
        _key(field): (
            field.name,
            hints[field.name],
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING,
        )
        for field in dataclasses.fields(kind)
    }


def _decode(hint: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return value
    if dataclasses.is_dataclass(hint):
        return _decode_fields(typing.cast(type, hint), value, path)
    if origin in (typing.Union, types.UnionType):
        inner = next(a for a in args if a is not type(None))
        return None if value is None else _decode(inner, value, path)
    if origin is Literal:
        _require(value in args, path, f"one of {', '.join(map(repr, args))}", value)
        return value
    if origin is dict:
        _require(isinstance(value, dict), path, "a table", value)
        return {_decode_key(args[0], key, path): _decode(args[1], v, f"{path}.{key}") for key, v in value.items()}
    if origin in (list, tuple):
        _require(isinstance(value, list), path, "a list", value)
        if origin is tuple and args[1] is not ...:
            _require(len(value) == len(args), path, f"a list of {len(args)}", value)
            return tuple(_decode(a, v, f"{path}[{i}]") for i, (a, v) in enumerate(zip(args, value, strict=True)))
        return origin(_decode(args[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if hint is float:
        _require(
            value is None or (isinstance(value, (int, float)) and not isinstance(value, bool)), path, "a number", value
        )
        return math.nan if value is None else float(value)
    _require(type(value) is hint, path, hint.__name__, value)
    return value


def _decode_fields(kind: type, value: Any, path: str) -> Any:
    _require(isinstance(value, dict), path, "a table", value)
    fields = _fields(kind)
    if unknown := [key for key in value if key not in fields]:
        raise UserError(f"{path} has an entry {unknown[0]!r} that is not known")
    if missing := [key for key, (_, _, optional) in fields.items() if key not in value and not optional]:
        raise UserError(f"{path} has no {missing[0]!r}")
    found = {fields[key][0]: _decode(fields[key][1], item, f"{path}.{key}") for key, item in value.items()}
    return kind(**found)


def _decode_key(hint: Any, key: str, path: str) -> Any:
    try:
        return hint(key)
    except ValueError:
        raise UserError(f"{path} has an entry {key!r} where {hint.__name__} is expected") from None


def _require(condition: bool, path: str, expected: str, value: Any) -> None:
    if not condition:
        raise UserError(f"{path} must be {expected}, not {value!r:.80}")
