"""Settings as tables of plain values, ready for JSON, and back, every key and type checked."""

from __future__ import annotations

import dataclasses
import difflib
import json
import math
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

T = TypeVar("T")
SPEED_ONLY = {"speed": True}
"""Metadata of a field that changes how fast or how talkative a stage is, where inputs lie or what is refused, and never
what it finds."""


class ConfigError(ValueError):
    """A setting has a value it may not take, or a key that does not exist."""


def require(condition: bool, message: str) -> None:
    """Raise `ConfigError` with the message where a condition on settings does not hold."""
    if not condition:
        raise ConfigError(message)


def require_list(values: Sequence[Any], name: str) -> None:
    """Require the values of a list setting to be there, and each once."""
    require(len(values) > 0, f"{name} must name one or more, with blanks between them")
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    require(not twice, f"{name} names {twice[0] if twice else ''} twice: leave one out")


def require_seed(seed: int, name: str) -> None:
    """Require a seed that fits the int32 columns of results, less room for the seeds counted from it."""
    require(0 <= seed < 2**31 - 2**16, f"{name} must lie in [0, {2**31 - 2**16}), not {seed}")


def require_finite(config: Any, path: str = "") -> None:
    """Require every number of a config, and of those within it, to be one: neither NaN nor infinite.

    Args:
        config: A dataclass.
        path: Its dotted name.
    """
    for field in dataclasses.fields(config):
        value, name = getattr(config, field.name), f"{path}.{field.name}".lstrip(".")
        if dataclasses.is_dataclass(value):
            require_finite(value, name)
        elif isinstance(value, float):
            require(math.isfinite(value), f"{name} must be a finite number, not {value}")


def hashed(value: Any) -> Any:
    """Return what of a setting decides results, as plain values: fields that are `SPEED_ONLY` are left out, and those
    that are `None` or tables in which nothing is given, so that what is not given changes nothing."""
    if dataclasses.is_dataclass(value):
        kept = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if not f.metadata.get("speed")}
        found = {name: hashed(setting) for name, setting in kept.items() if setting is not None}
        return {name: setting for name, setting in found.items() if setting != {}}
    if isinstance(value, (list, tuple)):
        return [hashed(one) for one in value]
    return value


def to_dict(config: Any) -> dict[str, Any]:
    """Return a config as plain dicts, lists and scalars, ready for JSON."""
    return json.loads(json.dumps(dataclasses.asdict(config)))


def from_dict(cls: type[T], values: dict[str, Any], path: str = "") -> T:
    """Build a config of type `cls` from what `to_dict` returned; what the class calls `former` is left out.

    Raises:
        ConfigError: A key does not exist (the closest existing one is named) or a value has the wrong type.
    """
    fields = {f.name: f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    kwargs = {}
    for key, value in values.items():
        if key in getattr(cls, "former", ()):
            continue
        if key not in fields:
            close = difflib.get_close_matches(key, fields, n=1)
            hint = f"; did you mean {path}{close[0]}?" if close else f"; known keys: {', '.join(fields)}"
            raise ConfigError(f"unknown config key {path}{key}{hint}")
        kwargs[key] = _convert(hints[key], value, f"{path}{key}")
    return cls(**kwargs)


def _convert(hint: Any, value: Any, path: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise ConfigError(f"{path} must be a table of settings, not {value!r}")
        return from_dict(hint, value, f"{path}.")  # type: ignore[arg-type]
    if origin is Literal:
        if value not in args:
            raise ConfigError(f"{path} must be one of {', '.join(map(str, args))}, not {value!r}")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in args:
            return None
        return _convert(next(a for a in args if a is not type(None)), value, path)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{path} must be a list, not {value!r}")
        return tuple(_convert(args[0], v, f"{path}[{i}]") for i, v in enumerate(value))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{path} must be {hint.__name__}, not {value!r}")
    if hint is float and not math.isfinite(value):
        raise ConfigError(f"{path} must be finite, not {value!r}")
    return value
