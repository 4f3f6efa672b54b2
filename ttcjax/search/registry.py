"""Strategies in text: `beam:n=16,width=4`.

A field of a strategy that is a number takes 1 to 65536, or from what its metadata calls `least`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import difflib
import functools
import typing
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from ttcjax.config import ConfigError, require, require_list
from ttcjax.config.plugins import Registry
from ttcjax.search.contract import Strategy
from ttcjax.search.strategies.adaptive import Adaptive
from ttcjax.search.strategies.beam import Beam
from ttcjax.search.strategies.best_of_n import BestOfN
from ttcjax.search.strategies.dvts import DVTS
from ttcjax.search.strategies.lookahead import Lookahead
from ttcjax.search.strategies.particles import Particles
from ttcjax.search.strategies.rebase import REBASE
from ttcjax.search.strategies.refine import Refine
from ttcjax.search.strategies.revise import Revise
from ttcjax.verify.select import Selector

STRATEGIES: Registry[typing.Any] = Registry(
    "ttcjax.strategies",
    {
        "best_of_n": BestOfN,
        "beam": Beam,
        "lookahead": Lookahead,
        "dvts": DVTS,
        "rebase": REBASE,
        "particles": Particles,
        "adaptive": Adaptive,
        "revise": Revise,
        "refine": Refine,
    },
)
"""By the word that a name begins with; a new strategy has a file in `ttcjax/search/strategies` and a line here, or
is registered, or is an entry point of this group."""
register = STRATEGIES.register
"""Add a strategy of your own: the word that its name begins with, and its class, a frozen dataclass."""
_MOST = 65536
"""Largest number in a strategy; far above what anyone runs, and far below what overflows."""


_Filled = Callable[[Mapping[str, typing.Any]], Mapping[str, typing.Any]]

VALIDATED = "validated"
"""Stands for the temperature that wins on validation questions, for a strategy and a budget."""


def split(text: str) -> tuple[str, dict[str, str]]:
    """Return the kind of a strategy's name and its settings as they are written, unchecked; see `parse`."""
    kind, _, rest = text.partition(":")
    pairs = [part.partition("=") for part in rest.split(",") if part]
    return kind, {key: value for key, _, value in pairs}


@dataclass(frozen=True)
class Named:
    """A strategy as a sweep names it: its budget is given later, and its temperature may be chosen later."""

    text: str
    strategy: Strategy
    """The same at a budget of 1, and without a temperature that is to be chosen."""
    validated: bool
    """Whether the temperature is to be chosen."""

    @property
    def selector(self) -> Selector:
        return self.strategy.selector

    @property
    def searches(self) -> bool:
        """Whether it does more than choose among independent samples, which a bank has for every budget."""
        return not isinstance(self.strategy, BestOfN)

    @property
    def revises(self) -> bool:
        """Whether it asks a revision model."""
        return self.strategy.revises

    @property
    def asks_verifier(self) -> bool:
        """Whether what it chooses depends on the verifier."""
        return self.strategy.asks_verifier

    def with_temperature(self, temperature: float) -> str:
        """Return the name with the temperature that was chosen for it; other names as they are."""
        return at_temperature(self.text, temperature) if self.validated else self.text

    def at(self, budget: int, **defaults: typing.Any) -> Strategy:
        """Return the strategy at a budget, as `for_budget` does, without a temperature that is to be chosen."""
        found = for_budget(self.with_temperature(1.0), budget, **defaults)
        return dataclasses.replace(found, temperature=None) if self.validated else found  # type: ignore[type-var]

    def is_best_of_n(self, budget: int) -> bool:
        """Whether it comes to best-of-N at a budget, so that samples of the bank answer it."""
        return isinstance(self.at(budget).plain(), BestOfN)


@functools.cache
def named(text: str) -> Named:
    """Read a strategy as a sweep names it.

    Raises:
        ConfigError: As `parse`.
    """
    validated = split(text)[1].get("temperature") == VALIDATED
    strategy = _at_budget(at_temperature(text, 1.0) if validated else text, 1)
    if validated:
        strategy = dataclasses.replace(strategy, temperature=None)  # type: ignore[type-var]
    return Named(text, strategy, validated)


def at_temperature(text: str, temperature: float) -> str:
    """Return a strategy's name with a temperature of sampling in the place of its own, or after all else."""
    kind, _, rest = text.partition(":")
    given = f"temperature={float(temperature)!r}"
    parts = list(filter(None, rest.split(",")))
    kept = [given if part.startswith("temperature=") else part for part in parts]
    return f"{kind}:{','.join(kept if given in kept else [*kept, given])}"


def check_for_sweep(
    names: Iterable[str], budgets: Iterable[int] = (1,), temperature: float | None = None, *, revises: bool = True
) -> None:
    """Say no, before anything is computed, to a strategy that a sweep could not run.

    Args:
        names: The strategies; `temperature=validated` stands for one that is chosen later.
        budgets: Generations.
        temperature: The sampler's, which a strategy has that names none.
        revises: Whether there is a revision model.

    Raises:
        ConfigError: A name cannot be read, fixes what the budgets decide, cannot have one of them, means what another
            one means, or asks for a revision model that is not there.
    """
    budgets = tuple(budgets)
    names = list(names)
    require_list(names, "sweep.strategies")
    seen: dict[tuple[Strategy | str, bool], str] = {}
    for name in names:
        found = named(name)
        require(
            revises or not found.revises,
            f"sweep.strategies: {name!r} asks for a revision model: leave it out, or train one (revision.enabled True)",
        )
        for n in budgets:
            found.at(n)
        # Other budgets may make one strategy of two, such as `beam:width=sqrt` at 16 of `beam:width=4`.
        same = seen.setdefault(_meaning(found, temperature), name)
        require(same == name, f"sweep.strategies: {name!r} and {same!r} are the same strategy: leave one out")


def _meaning(name: Named, temperature: float | None) -> tuple[Strategy | str, bool]:
    """Return the strategy of a name, at a budget that most widths divide, or the name where none can be had there;
    and whether its temperature is to be chosen."""
    try:
        found = _at_budget(name.with_temperature(1.0), 55440)
    except ConfigError:
        return name.text, name.validated
    if name.validated or found.temperature is None:
        found = dataclasses.replace(found, temperature=temperature)  # type: ignore[type-var]
    return found, name.validated


def for_budget(text: str, budget: int, **defaults: typing.Any) -> Strategy:
    """Return the strategy with as many rows as a budget of generations pays for; see `Strategy.at_budget`.

    `n` is the budget itself unless a row costs more than one generation: `lookahead:k=3` at 64 has 16 beams. Where
    that leaves no search, because fewer rows than the width remain, it is best-of-N with the whole budget.

    Args:
        text: A name without what the budget decides, `n` for most, as in `parse`.
        budget: Generations a question (Snell et al. 2024, section 5.2).
        **defaults: As in `parse`.

    Raises:
        ConfigError: As in `parse`, or the strategy cannot have that many rows.
    """
    strategy = _at_budget(text, budget, **defaults)
    if strategy.cost() <= budget:
        return strategy
    smaller = _at_budget(text, max(1, budget * budget // strategy.cost()), **defaults)
    return BestOfN(budget, temperature=strategy.temperature) if isinstance(smaller.plain(), BestOfN) else smaller


def _at_budget(text: str, budget: int, **defaults: typing.Any) -> Strategy:
    """Return the strategy with the settings that a budget decides, whatever a row costs."""
    cls = STRATEGIES.get(_long(text).partition(":")[0])
    own = None if cls is None else functools.partial(cls.at_budget, budget)
    return parse(text, filled=own, **defaults)


def parse(text: str, *, filled: _Filled | None = None, **defaults: typing.Any) -> Strategy:
    """Read a strategy's name; `majority` is short for `best_of_n:select=majority`.

    Args:
        text: `kind` or `kind:key=value,...`, for example `beam:n=16,width=sqrt`.
        filled: As in `read`.
        **defaults: Values of keys that the text leaves out, such as `n`; keys the strategy lacks are ignored.

    Raises:
        ConfigError: An unknown strategy or key (the closest one is named), a key twice, a value it may not take, or a
            `temperature` of softmax votes without `vote_temperature`.
    """
    kind, given = split(text)
    if given.get("select") == "softmax" and "temperature" in given and "vote_temperature" not in given:
        # Such a name meant the votes once; taken for the samples' it would be run as something else, silently.
        raise ConfigError(
            f"temperature in strategy {text!r} is that of sampling: write vote_temperature={given['temperature']} for "
            "that of the votes, or both"
        )
    if kind == "majority":
        if "select" in given:
            raise ConfigError(f"majority takes no select, in {text!r}: use best_of_n:select={given['select']}")
        return read(_long(text), STRATEGIES, text, filled=filled, **defaults)
    return read(text, {"majority": None, **STRATEGIES}, text, filled=filled, **defaults)


def _long(text: str) -> str:
    """Return a name without what is short for another."""
    kind, _, rest = text.partition(":")
    return f"best_of_n:select=majority{',' * bool(rest)}{rest}" if kind == "majority" else text


def read(
    text: str,
    kinds: Mapping[str, typing.Any],
    shown: str = "",
    *,
    filled: _Filled | None = None,
    **defaults: typing.Any,
) -> typing.Any:
    """Read `kind:key=value,...` as an instance of the dataclass of that kind; see `parse`.

    Args:
        text: What is read.
        kinds: Dataclasses by kind.
        shown: What messages quote, where that is not `text`.
        filled: Returns values of other keys from those that the text gives; keys the dataclass lacks are ignored.
        **defaults: As in `parse`.

    Raises:
        ConfigError: As in `parse`, or of `filled`.
    """
    shown = shown or text
    kind, _, rest = text.partition(":")
    given: dict[str, str] = {}
    for part in filter(None, rest.split(",")):
        key, _, value = part.partition("=")
        if key in given:
            raise ConfigError(f"{key!r} stands twice in strategy {shown!r}: leave one out")
        given[key] = value
    if kinds.get(kind) is None:
        hint = closest(kind, list(kinds))
        if "," in kind:
            hint = "; blanks separate strategies"
        elif " " in kind:
            hint = "; each is a word of its own: leave out the quotes"
        raise ConfigError(f"unknown strategy {kind!r} in {shown!r}{hint}")
    cls = kinds[kind]
    hints = typing.get_type_hints(cls)
    fields = {f.name: f for f in dataclasses.fields(cls)}
    names = list(fields)
    for key in given:
        if key not in names:
            hint = "; blanks separate strategies" if ":" in key or key in kinds else closest(key, names)
            raise ConfigError(f"unknown setting {key!r} in strategy {shown!r}{hint}")
    named = {
        key: _value(hints[key], value, f"{key} in strategy {shown!r}", fields[key].metadata.get("least", 1))
        for key, value in given.items()
    }
    try:
        more = {} if filled is None else filled(named)
    except ConfigError as error:
        raise ConfigError(f"{shown!r} {error}") from error
    values = {key: value for key, value in {**defaults, **named, **more}.items() if key in names}
    missing = [f.name for f in fields.values() if f.default is dataclasses.MISSING and f.name not in values]
    if missing:
        raise ConfigError(f"strategy {shown!r} needs {missing[0]}, for example {kind}:{missing[0]}=16")
    return cls(**values)


def closest(word: str, known: list[str]) -> str:
    """Return what to add to a message on an unknown word: the known one it is near to, or all of them."""
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def _value(hint: typing.Any, text: str, where: str, least: int) -> typing.Any:
    """Read `text` as one of the types or literals that `hint` allows, a number from `least` up."""
    options = typing.get_args(hint) if typing.get_origin(hint) is not None else (hint,)
    literals = [
        value for o in options for value in (typing.get_args(o) if typing.get_origin(o) is typing.Literal else (o,))
    ]
    if text in literals:
        return text
    if int in literals:
        if text.isascii() and text.isdigit() and least <= int(text[:10]) <= _MOST:
            return int(text)
        allowed = [f"a whole number from {least} up to {_MOST}", *(repr(v) for v in literals if isinstance(v, str))]
    elif float in literals:
        with contextlib.suppress(ValueError):
            if 0 < (number := float(text)) <= _MOST:
                return number
        allowed = [f"a number above 0, up to {_MOST}"]
    else:
        allowed = [repr(v) for v in literals]
    raise ConfigError(f"{where} must be {' or '.join(allowed)}, not {text!r}")
