"""Verdicts on claims of Snell et al. 2024: what an interval says of one, and how claims are shown.

Where a claim is looked at (a budget, a group of bins) is fixed by the config, never by what was seen. A claim whose
numbers a run does not have is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

from rich.console import Console
from rich.text import Text

from ttcjax.eval.report.drawing import tables
from ttcjax.eval.stats.intervals import Estimate
from ttcjax.eval.stats.savings import Saved, budget_in_view

RULE = (
    "yes: the whole 95% interval lies on the side that the claim says; no: the whole of it lies on the other; "
    "no difference: it holds both, and nothing beyond half a point or a tenth of the compute; undecided: it holds both "
    "and more; not measured: the claim is on budgets beyond those measured; not applicable: what was "
    "run is not what the claim speaks of. Differences are paired over questions, and what was chosen is chosen anew in "
    "every resample. Each interval is of its own claim: of forty that are true at their limits, two would be misjudged "
    "by chance."
)

Unit = Literal["points", "%", "times"]
Held = Literal["yes", "no", "no difference", "undecided", "not measured", "not applicable"]
Beyond = Literal["", "seen", "high"]
_POINTS, _COMPUTE = 0.5, 1.1
"""Differences from here on matter: in points of accuracy, and in times the compute."""


@dataclass(frozen=True)
class Claim:
    """One claim and what was seen of it.

    Attributes:
        claim: In our words, with the place where it was looked at.
        source: Figure or section of the paper, numbered as in its first version; ICLR's number where only that has it.
        paper: What the paper says there, in short.
        seen: The estimate, in `unit`.
        low: Lower end of its 95% interval.
        high: Upper end.
        unit: `points` of accuracy, `%` of what the claim speaks of, or `times`.
        held: Whether it holds here.
        measure: Where the summary has the number.
        beyond: Which numbers are lower bounds, as the measured budgets end there: `seen` and the upper end, the upper
            end alone (`high`), or none.
        per_seed: In a study, what was seen in each seed; `None` of one that speaks of another strategy or budget.
        held_per_seed: The verdict of each.
    """

    claim: str
    source: str
    paper: str
    seen: float
    low: float
    high: float
    unit: Unit
    held: Held
    measure: str
    beyond: Beyond
    per_seed: tuple[float | None, ...] = ()
    held_per_seed: tuple[Held | None, ...] = ()


SOURCES = (
    *("Fig. 3 left", "Fig. 3 right", "Fig. 4", "Fig. 6 left", "Section 6.1", "Fig. 16", "Fig. 6 right"),
    *("Fig. 7 right", "Fig. 10 right", "Fig. 8", "Fig. 1 right", "Fig. 13", "Fig. 14", "ICLR Fig. 13", "Fig. 15"),
    *("ICLR Fig. 17", "Figs. 24 to 29"),
)
"""Figures in the order in which claims on them are listed; others come last."""


def in_order(claims: Iterable[Claim]) -> tuple[Claim, ...]:
    """Return claims by their place in the paper, those on one figure as they stand."""
    places = {source: i for i, source in enumerate(SOURCES)}
    return tuple(sorted(claims, key=lambda claim: places.get(claim.source, len(places))))


def judged(
    text: str,
    source: str,
    paper: str,
    seen: Estimate,
    held: Held,
    measure: str,
    *,
    unit: Unit = "points",
    by: float = 100.0,
    beyond: Beyond = "",
) -> Claim:
    """Return a claim with its verdict, `no difference` in place of `undecided` where none that matters is left.

    Args:
        text: The claim.
        source: As in `Claim`.
        paper: As in `Claim`.
        seen: What was seen.
        held: The verdict by its interval.
        measure: As in `Claim`.
        unit: As in `Claim`.
        by: What one of `seen` is in that unit.
        beyond: As in `Claim`.
    """
    value, low, high = (round(by * number, 4) for number in seen.ends)
    if held == "undecided" and not beyond and none_that_matters(low, high, unit):
        held = "no difference"
    return Claim(text, source, paper, value, low, high, unit, held, measure, beyond)


def higher(text: str, source: str, paper: str, seen: Estimate, measure: str) -> Claim:
    """Return a claim that a difference is positive."""
    return judged(text, source, paper, seen, above(seen.low, seen.high), measure)


def lower(text: str, source: str, paper: str, seen: Estimate, measure: str) -> Claim:
    """Return a claim that a difference is negative."""
    return judged(text, source, paper, seen, below(seen.low, seen.high), measure)


def saving(what: str, saved: Mapping[int, Saved], source: str, paper: str, where: str) -> Iterator[Claim]:
    """Claim that the baseline needs more than the budget, at the largest budget at which `SAVED` could be seen.

    To take the budget where most is saved would find a saving by chance where there is none.

    Args:
        what: The claim.
        saved: What the baseline needs, by budget.
        source: As in `Claim`.
        paper: As in `Claim`.
        where: `Claim.measure`.
    """
    n = budget_in_view(saved)
    if n is None:
        return
    found = saved[n]
    seen = Estimate(found.times, found.low, found.high)
    beyond: Beyond = "" if found.high_reached else "high" if found.reached else "seen"
    text = f"{what} (N = {n}; {max(saved) / n:g} times could be seen)"
    held = above(seen.low, seen.high, 1.0)
    yield judged(text, source, paper, seen, held, where, unit="times", by=1.0, beyond=beyond)


def turned(seen: Estimate) -> Estimate:
    """Return a difference the other way round."""
    return Estimate(-seen.mean, -seen.high, -seen.low, seen.se)


def above(low: float, high: float, limit: float = 0.0) -> Held:
    """Tell whether an interval lies above a limit."""
    return "yes" if low > limit else "no" if high < limit else "undecided"


def below(low: float, high: float, limit: float = 0.0) -> Held:
    """Tell whether an interval lies below a limit."""
    return "yes" if high < limit else "no" if low > limit else "undecided"


def near(low: float, high: float, value: float, within: float) -> Held:
    """Tell whether an interval lies around a value: `yes` if all of it is near, `no` if none of it is."""
    if value - within <= low and high <= value + within:
        return "yes"
    return "no" if low > value + within or high < value - within else "undecided"


def none_that_matters(low: float, high: float, unit: Unit) -> bool:
    """Tell whether an interval holds no difference (0, or once the compute), and none that would matter.

    Half a point of accuracy does not, nor does a tenth of the compute; of other shares (`%`) nothing is said.
    """
    if unit == "times":
        return 1 / _COMPUTE < low <= 1 <= high < _COMPUTE
    return unit == "points" and -_POINTS < low <= 0 <= high < _POINTS


def unless(reason: str | None, claim: Claim) -> Claim:
    """Return the claim, not judged where there is a reason why what was seen is not what it speaks of."""
    return claim if reason is None else replace(claim, claim=f"{claim.claim}; {reason}", held="not applicable")


def seen(claim: Claim) -> str:
    """Return what was seen in words, e.g. `+2.4 points (1.1 to 3.8)` or `at least 4.0 times (2.9 to 4.0 or more)`."""
    value, low, high, unit = claim.seen, claim.low, claim.high, claim.unit
    more = " or more" if claim.beyond else ""
    if unit == "times":
        least = "at least " if claim.beyond == "seen" else ""
        return f"{least}{value:.1f} times ({low:.1f} to {high:.1f}{more})"
    sign = "+" if unit == "points" or claim.measure.startswith("exchange") else ""
    name = " points" if unit == "points" else "%"
    return f"{value:{sign}.1f}{name} ({low:{sign}.1f} to {high:{sign}.1f})"


def tally(claims: Sequence[Claim]) -> dict[str, int]:
    """Return how many claims have each verdict."""
    return {held: sum(claim.held == held for claim in claims) for held in get_args(Held)}


def in_words(claims: Sequence[Claim]) -> str:
    """Return how the claims were judged in a sentence, without verdicts that none has."""
    found = tally(claims)
    parts = [f"{found[held]} {held}" for held in get_args(Held)[2:] if found[held]]
    return ", ".join([f"{found['yes']} of {len(claims)} claims hold", f"{found['no']} do not", *parts])


def render(claims: Sequence[Claim], console: Console) -> None:
    """Print the claims with what was seen of each."""
    table = tables.table("claims of the paper and what this run shows, 95% intervals", ["claim", "seen", "held?"])
    styles = {"yes": "green", "no": "red"}
    for claim in claims:
        shown, _, interval = seen(claim).partition(" (")
        held = Text(claim.held, styles.get(claim.held, "dim"))
        table.add_row(f"{claim.claim}, {claim.source}", tables.two_lines(shown, interval.rstrip(")")), held)
    console.print(table)


COLUMNS = ("claim", "source", "paper", "seen", "low", "high", "unit", "held", "measure", "beyond")


def csv_rows(claims: Sequence[Claim]) -> list[tuple[Any, ...]]:
    """Return the fields `COLUMNS` of each claim."""
    return [tuple(getattr(claim, name) for name in COLUMNS) for claim in claims]
