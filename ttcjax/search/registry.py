"""Strategies in text: `beam:n=16,width=4`."""

from __future__ import annotations

import dataclasses
import difflib
import typing
from collections.abc import Iterable

from ttcjax.config import ConfigError
from ttcjax.search.base import Strategy
from ttcjax.search.beam import Beam
from ttcjax.search.best_of_n import BestOfN

STRATEGIES: dict[str, typing.Any] = {"best_of_n": BestOfN, "beam": Beam}
FROM_SAMPLES = ("majority", "best_of_n")
"""Kinds that choose among independent samples, so a bank of samples answers them at every budget."""


_MOST = 65536
"""Largest number in a strategy; far above what anyone runs, and far below what overflows."""


def check_for_sweep(names: Iterable[str]) -> None:
    """Say no, before anything is computed, to a strategy that a sweep could not run.

    Raises:
        ConfigError: A name cannot be read, or fixes the budget `n`, which the sweep varies.
    """
    for name in names:
        if any(part.startswith("n=") for part in name.partition(":")[2].split(",")):
            raise ConfigError(f"sweep.strategies: {name!r} must not fix n, which sweep.budgets gives: leave it out")
        parse(name, n=1)


def parse(text: str, **defaults: typing.Any) -> Strategy:
    """Read a strategy's name; `majority` is short for `best_of_n:select=majority`.

    Args:
        text: `kind` or `kind:key=value,...`, for example `beam:n=16,width=sqrt`.
        **defaults: Values of keys that the text leaves out, such as `n`; keys the strategy lacks are ignored.

    Raises:
        ConfigError: An unknown strategy or key (the closest one is named), or a value it may not take.
    """
    kind, _, rest = text.partition(":")
    given: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        given[key] = value
    if kind == "majority":
        if "select" in given:
            raise ConfigError(f"majority takes no select, in {text!r}: use best_of_n:select={given['select']}")
        kind, given = "best_of_n", {"select": "majority", **given}
    if kind not in STRATEGIES:
        raise ConfigError(f"unknown strategy {kind!r} in {text!r}{_closest(kind, ['majority', *STRATEGIES])}")
    cls = STRATEGIES[kind]
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    for key in given:
        if key not in names:
            raise ConfigError(f"unknown setting {key!r} in strategy {text!r}{_closest(key, names)}")
    values = {key: value for key, value in defaults.items() if key in names}
    values |= {key: _value(hints[key], value, f"{key} in strategy {text!r}") for key, value in given.items()}
    missing = [f.name for f in dataclasses.fields(cls) if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        raise ConfigError(f"strategy {text!r} needs {missing[0]}, for example {kind}:{missing[0]}=16")
    return cls(**values)


def _closest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _value(hint: typing.Any, text: str, where: str) -> typing.Any:
    """Read `text` as one of the types or literals that `hint` allows."""
    options = typing.get_args(hint) if typing.get_origin(hint) is not None else (hint,)
    literals = [
        value for o in options for value in (typing.get_args(o) if typing.get_origin(o) is typing.Literal else (o,))
    ]
    if text in literals:
        return text
    if int in literals:
        if text.isascii() and text.isdigit() and 0 < int(text[:10]) <= _MOST:
            return int(text)
        allowed = [f"a positive whole number up to {_MOST}", *(repr(v) for v in literals if isinstance(v, str))]
    else:
        allowed = [repr(v) for v in literals]
    raise ConfigError(f"{where} must be {' or '.join(allowed)}, not {text!r}")
