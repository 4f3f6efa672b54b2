"""What Snell et al. 2024 claim, and whether a run shows it: a table from the numbers of `summary.json` alone.

The rule is the same for all: `yes` if the whole 95% interval lies on the side that the claim says, `no` if the whole of
it lies on the other, `undecided` otherwise. Intervals of differences are paired over questions. A claim whose numbers
a run does not have is left out.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, get_args

from rich.console import Console
from rich.text import Text

from ttcjax.eval import figures, tables
from ttcjax.eval.optimal import CHOSEN

WEIGHTED = "best_of_n:select=weighted"
RULE = (
    "yes: the whole 95% interval lies on the side that the claim says; no: the whole of it lies on the other; "
    "undecided: it holds both; not applicable: what was run is not what the claim speaks of. Differences are paired "
    "over questions. Each interval is of its own claim: of forty that are true at their limits, two would be "
    "misjudged by chance."
)
SAVED = 4.0
"""Times the compute that choosing by difficulty saves at most in the paper."""
TURNED = 0.38
"""Share of right answers that the paper's revision model turns wrong."""
_NEAR = 0.10
"""How far from `TURNED` still counts as the same."""
_NOTHING = 0.10
"""Accuracy below which nothing works."""
_KEPT = -0.01
"""A loss in accuracy that is none: one point."""

Unit = Literal["points", "%", "times"]
Held = Literal["yes", "no", "undecided", "not applicable"]


@dataclass(frozen=True)
class Claim:
    """One claim and what was seen of it.

    Attributes:
        claim: In our words, with the place where it was looked at.
        source: Figure or section of the paper, numbered as in its first version; ICLR's number where only that has it.
        seen: The estimate, in `unit`.
        low: Lower end of its 95% interval.
        high: Upper end.
        unit: `points` of accuracy, `%` of what the claim speaks of, or `times`.
        held: Whether it holds here.
        measure: Where the summary has the number.
    """

    claim: str
    source: str
    seen: float
    low: float
    high: float
    unit: Unit
    held: Held
    measure: str


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


def unless(reason: str | None, claim: Claim) -> Claim:
    """Return the claim, not judged where there is a reason why what was seen is not what it speaks of."""
    return claim if reason is None else replace(claim, claim=f"{claim.claim}; {reason}", held="not applicable")


def summarise(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every claim that the summary has numbers on, as plain tables, see `Claim`.

    Args:
        summary: With JSON's own types.
    """
    parts = (
        _searching,
        _by_difficulty,
        _choosing,
        _revising,
        _splitting,
        _choosing_ratios,
        _exchanging,
        _aggregating,
        _voting,
        _outcome,
        _verifying_revisions,
        _weak,
        _exploiting,
    )
    return [asdict(claim) for part in parts for claim in part(summary)]


def _claim(
    text: str, source: str, cell: dict[str, Any], held: Held, measure: str, *, unit: Unit = "points", by: float = 100.0
) -> Claim:
    seen, low, high = (round(by * cell[key], 4) for key in ("mean", "low", "high"))
    return Claim(text, source, seen, low, high, unit, held, measure)


def _higher(text: str, source: str, cell: dict[str, Any], measure: str) -> Claim:
    """Return a claim that a difference is positive."""
    return _claim(text, source, cell, above(cell["low"], cell["high"]), measure)


def _lower(text: str, source: str, cell: dict[str, Any], measure: str) -> Claim:
    """Return a claim that a difference is negative."""
    return _claim(text, source, cell, below(cell["low"], cell["high"]), measure)


def _known(cell: dict[str, Any] | None) -> bool:
    return cell is not None and cell.get("mean") is not None


def _compared(summary: dict[str, Any], a: str, b: str) -> dict[int, dict[str, Any]]:
    """Return the differences between two strategies, by budget."""
    return {
        row["n"]: {**row, "mean": row["difference"]} for row in summary["comparisons"] if (row["a"], row["b"]) == (a, b)
    }


def _voting(summary: dict[str, Any]) -> Iterator[Claim]:
    found = _compared(summary, WEIGHTED, "majority")
    # At the largest budget the bank holds few blocks of samples, and a quarter of it is clearer.
    for n in sorted({max(found) // 4, max(found)} & set(found)) if found else ():
        text = f"Best-of-N weighted by the PRM beats the majority vote (N = {n})"
        yield _higher(text, "Fig. 14", found[n], "comparisons")


def _searching(summary: dict[str, Any]) -> Iterator[Claim]:
    for strategy in dict.fromkeys(row["a"] for row in summary["comparisons"]):
        found = _compared(summary, strategy, WEIGHTED)
        if not found:
            continue
        name, largest = figures.label(strategy), max(found)
        low = min((n for n in found if n >= 4), default=largest)
        if strategy.startswith("beam:") and low < largest:
            text = f"Search ({name}) beats best-of-N weighted at a low budget (N = {low})"
            yield _higher(text, "Fig. 3 left", found[low], "comparisons")
        if strategy.startswith(("beam:", "lookahead:")):
            text = f"Search ({name}) falls below best-of-N weighted at the highest budget (N = {largest})"
            yield _lower(text, "Fig. 3 left", found[largest], "comparisons")
    rows = [
        row
        for row in summary.get("paired", {}).get("strategies", [])
        if {row["a"].partition(":")[0], row["b"].partition(":")[0]} == {"beam", "lookahead"}
    ]
    for row in rows:
        if row["n"] == max(r["n"] for r in rows) and _width(row["a"]) == _width(row["b"]):
            first = row["a"].startswith("lookahead")
            a, b = (row["a"], row["b"]) if first else (row["b"], row["a"])
            cell = row if first else _turned(row)
            text = f"{figures.label(a)} is worse than {figures.label(b)} at an equal budget (N = {row['n']})"
            yield _lower(text, "Fig. 3 left", cell, "paired.strategies")


def _turned(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a difference the other way round."""
    return {"mean": -cell["mean"], "low": -cell["high"], "high": -cell["low"]}


def _width(strategy: str) -> str:
    return strategy.partition("width=")[2].partition(",")[0]


def _by_difficulty(summary: dict[str, Any]) -> Iterator[Claim]:
    growth = summary.get("paired", {}).get("growth", {})
    beams = [name for name in growth if name.startswith("beam:") and "5" in growth[name]]
    if not beams:
        return
    beam = "beam:width=4" if "beam:width=4" in beams else beams[0]
    for bins, side, verb in (("1-2", _lower, "loses"), ("3-4", _higher, "gains")):
        cell = growth[beam][bins]
        which, at = "easy" if side is _lower else "harder", f"N = {cell['from']} to {cell['to']}"
        text = f"On {which} questions (bins {bins}) {figures.label(beam)} {verb} accuracy with budget ({at})"
        yield side(text, "Fig. 3 right", cell, f"paired.growth[{beam}][{bins}]")
    hardest = summary.get("compute_optimal", {}).get("per_bin", {}).get("oracle", {}).get("5")
    if hardest is None:
        return
    n = max(map(int, hardest[beam]))
    hardest = {name: cells for name, cells in hardest.items() if name != CHOSEN}
    best = max(hardest, key=lambda name: hardest[name][str(n)]["mean"])
    cell = hardest[best][str(n)]
    what = f"{figures.label(best)}, the best, under {_NOTHING:.0%}"
    text = f"On the hardest questions (bin 5) nothing works: {what} (N = {n})"
    held = below(cell["low"], cell["high"], _NOTHING)
    yield _claim(text, "Fig. 3 right", cell, held, "compute_optimal.per_bin.oracle[5]", unit="%")


def _choosing(summary: dict[str, Any]) -> Iterator[Claim]:
    for notion in ("oracle", "predicted"):
        cells = summary.get("compute_optimal", {}).get(notion)
        if cells is None:
            continue
        where = f"compute_optimal.{notion}.compute_saved"
        what = f"Best-of-N weighted needs up to {SAVED:.0f} times the compute of choosing by {notion} difficulty"
        yield from _saving(what, cells.get("compute_saved", {}), "Fig. 4", where)
        n = max(cells["minus_best"], key=int)
        text = f"Choosing by {notion} difficulty beats the best single strategy (N = {n})"
        yield _higher(text, "Fig. 4", cells["minus_best"][n], f"compute_optimal.{notion}.minus_best")


def _saving(what: str, saved: dict[str, Any], source: str, where: str) -> Iterator[Claim]:
    """Claim that the baseline needs so many times the budget, at the budget where it needs most.

    The largest of several estimates: chance flatters it, and its interval does not know. So it is in the paper. Only
    budgets at which so much could be seen count: elsewhere the baseline's largest one ends the comparison.
    """
    if not saved:
        return
    largest = max(map(int, saved))
    able = [n for n in saved if int(n) > 1 and int(n) * SAVED <= largest]
    if not able:
        return
    n = max(able, key=lambda n: saved[n]["times"])
    cell = {"mean": saved[n]["times"], "low": saved[n]["low"], "high": saved[n]["high"]}
    # What the baseline does not reach within its largest budget stands at that budget: `SAVED` itself is enough.
    held: Held = "yes" if cell["low"] >= SAVED else "no" if cell["high"] < SAVED else "undecided"
    ends = "" if saved[n]["reached"] else f"; it does not get there by {largest}"
    text = f"{what} (N = {n}, where most{ends})"
    yield _claim(text, source, cell, held, where, unit="times", by=1.0)


def _aggregating(summary: dict[str, Any]) -> Iterator[Claim]:
    rows = summary.get("paired", {}).get("aggregation", [])
    names = {"last": "the last step's score", "min": "the lowest step's", "product": "the product of all steps'"}
    for a, b in (("last", "min"), ("min", "product")):
        cells = {row["n"]: row for row in rows if (row["a"], row["b"]) == (a, b)}
        if cells:
            text = f"As a solution's score {names[a]} beats {names[b]} (N = {max(cells)})"
            yield _higher(text, "Fig. 13", cells[max(cells)], "paired.aggregation")
    cells = {row["n"]: row for row in rows if (row["a"], row["b"]) == ("product", "majority")}
    if cells:
        text = f"Votes weighted by the product of all steps' scores fall below the majority vote (N = {max(cells)})"
        yield _lower(text, "Fig. 13", cells[max(cells)], "paired.aggregation")


def _outcome(summary: dict[str, Any]) -> Iterator[Claim]:
    orm = summary.get("orm")
    if orm is None:
        return
    cells = {row["n"]: row for row in orm["prm_minus_orm"] if row["selector"] == "weighted"}
    n = max(cells)
    reason = orm.get("incomparable")
    text = f"The PRM beats the ORM in best-of-N weighted (N = {n})"
    yield unless(reason, _higher(text, "Fig. 14", cells[n], "orm.prm_minus_orm"))
    if "gap_growth" in orm:
        text = f"The PRM's lead over the ORM grows with the budget (N = {orm['gap_growth']['from']} to {n})"
        yield unless(reason, _higher(text, "Fig. 14", orm["gap_growth"], "orm.gap_growth"))
    for name in ("orm", "prm"):
        text = f"By the {name.upper()}, best-of-N weighted beats plain best-of-N (N = {n})"
        yield _higher(text, "ICLR Fig. 13", orm["weighted_minus_best"][name][str(n)], "orm.weighted_minus_best")
    if "late_gain" in orm:
        plain, weighted = orm["late_gain"]["orm"]["best"], orm["late_gain"]["orm"]["weighted"]
        text = f"Plain best-of-N by the ORM turns down at high budgets (N = {plain['from']} to {n})"
        yield _lower(text, "ICLR Fig. 13", plain, "orm.late_gain.orm.best")
        text = (
            f"Best-of-N weighted by the ORM does not turn down, or by a point at most (N = {weighted['from']} to {n})"
        )
        held = above(weighted["low"], weighted["high"], _KEPT)
        yield _claim(text, "ICLR Fig. 13", weighted, held, "orm.late_gain.orm.weighted")


def _revising(summary: dict[str, Any]) -> Iterator[Claim]:
    revision = summary.get("revision", {})
    late = revision.get("late_steps")
    if late is not None:
        steps = f"steps {late['from']} to {late['to']} less"
        text = f"Revising raises pass@1 ({steps} the first)"
        yield _higher(text, "Fig. 6 left", late["minus_first"], "revision.late_steps.minus_first")
        text = f"Revising raises pass@1 past the steps that training had ({steps} step {late['trained']})"
        yield _higher(text, "Fig. 6 left", late["minus_trained"], "revision.late_steps.minus_trained")
    turned = revision.get("right_to_wrong")
    if turned is not None and _known(turned):
        text = f"Of right answers about {TURNED:.0%} turn wrong at the next step (within {100 * _NEAR:.0f} points)"
        held = near(turned["low"], turned["high"], TURNED, _NEAR)
        found = _claim(text, "Section 6.1", turned, held, "revision.right_to_wrong", unit="%")
        yield unless(revision.get("other_recipe"), found)
    if revision.get("rest_em"):
        rows = [row for row in revision["sequential_minus_parallel"] if row["selector"] == "majority"]
        if rows:
            text = f"After ReST^EM training one chain is worse than parallel answers (majority, N = {rows[-1]['n']})"
            yield _lower(text, "Fig. 16", rows[-1], "revision.sequential_minus_parallel")


def _splitting(summary: dict[str, Any]) -> Iterator[Claim]:
    revision = summary.get("revision", {})
    names = {"hierarchical": "the verifier", "majority": "majority"}
    for rule, by in names.items():
        rows = [row for row in revision.get("sequential_minus_parallel", []) if row["selector"] == rule]
        if rows:
            text = f"One chain beats as many parallel answers, selected by {by} (N = {rows[-1]['n']})"
            yield _higher(text, "Fig. 6 right", rows[-1], "revision.sequential_minus_parallel")
    by_ease = revision.get("by_ease")
    if by_ease is None:
        return
    for rule, source in (("hierarchical", "Fig. 7 right"), ("majority", "Fig. 10 right")):
        cells, at = by_ease[rule], f"{names[rule]}, N = {by_ease['n']}"
        if rule == "hierarchical":
            text = f"On easy questions (bins 1-2) one chain is better than parallel answers ({at})"
            cell = cells["easy"]["sequential_minus_parallel"]
            yield _higher(text, source, cell, "revision.by_ease.easy")
        if "hard" in cells:
            for other, key in (("parallel answers", "parallel"), ("one chain", "sequential")):
                text = f"On hard questions (bins 3-5) a ratio in between beats {other} ({at})"
                yield _higher(text, source, cells["hard"][f"between_minus_{key}"], "revision.by_ease.hard")


def _choosing_ratios(summary: dict[str, Any]) -> Iterator[Claim]:
    chosen = summary.get("revision", {}).get("compute_optimal", {}).get("hierarchical", {}).get("chosen", {})
    for notion, cells in chosen.items():
        where = f"revision.compute_optimal.hierarchical.{notion}"
        what = f"Parallel answers need up to {SAVED:.0f} times the compute of ratios chosen by {notion} difficulty"
        yield from _saving(what, cells["compute_saved"], "Fig. 8", f"{where}.compute_saved")
        n = max(cells["minus_parallel"], key=int)
        text = f"Ratios chosen by {notion} difficulty beat parallel answers (the verifier, N = {n})"
        yield _higher(text, "Fig. 8", cells["minus_parallel"][n], f"{where}.minus_parallel")


def _verifying_revisions(summary: dict[str, Any]) -> Iterator[Claim]:
    revision = summary.get("revision", {})
    rows = revision.get("verifier_differences", [])
    for other, text in (
        ("prm", "On revisions an ORM trained on them beats the PRM of base samples"),
        ("no_history", "The ORM of revisions gains from the answers before in view"),
    ):
        cells = {row["n"]: row for row in rows if (row["a"], row["b"]) == ("history", other)}
        cells |= {row["n"]: _turned(row) for row in rows if (row["a"], row["b"]) == (other, "history")}
        if cells:
            n = max(cells)
            yield _higher(f"{text} (one chain of {n})", "Fig. 15", cells[n], "revision.verifier_differences")


def _weak(summary: dict[str, Any]) -> Iterator[Claim]:
    found = summary.get("weak_verifiers", {}).get("minus_weaker", {})
    for name, text in (
        ("flipped", "A PRM with a fifth of its scores flipped beats random scores"),
        ("standard", "The PRM beats itself with a fifth of its scores flipped"),
    ):
        if name in found:
            n = max(found[name], key=int)
            yield _higher(f"{text} (N = {n})", "ICLR Fig. 17", found[name][n], "weak_verifiers.minus_weaker")


def _exchanging(summary: dict[str, Any]) -> Iterator[Claim]:
    exchange = summary.get("exchange")
    if exchange is None:
        return
    times = f"{exchange['size_ratio']:.0f} times larger model"
    for source in ("search", "revisions"):
        bars = exchange["sources"].get(source, {}).get("bars", {})
        for group, cells in bars.items():
            by_r = sorted((c for c in cells if c["convention"] == "v1" and c["relative"]), key=lambda c: c["r"])
            by_r = [cell for cell in by_r if _known(cell["relative"])]
            where = f"exchange.sources.{source}.bars.{group}"
            wins = [cell for cell in by_r if cell["r"] < 1][:1] if group in ("easy", "medium") else []
            if (source, group) == ("revisions", "easy"):  # in the paper they win there at every R
                wins += [cell for cell in by_r if cell["r"] > 1][-1:]
            loses = [cell for cell in by_r if cell["r"] > 1][-1:] if group == "hard" else []
            for cell in wins:
                text = f"On {group} questions the small model with {source} beats the {times} ({_due(cell)})"
                yield _relative(text, cell, where, above)
            for cell in loses:
                text = f"On {group} questions the small model with {source} loses to the {times} ({_due(cell)})"
                yield _relative(text, cell, where, below)


def _due(cell: dict[str, Any]) -> str:
    spent = f", judged by {cell['spent']:.0f} of {cell['kappa']:.0f} generations"
    return f"R = {cell['r']:g}{spent if cell['spent'] < cell['kappa'] else ''}"


def _relative(text: str, cell: dict[str, Any], measure: str, side: Callable[[float, float], Held]) -> Claim:
    """Return a claim at equal FLOPs. A smaller model that loses with less than its due may win with all of it."""
    found = cell["relative"]
    held = side(found["low"], found["high"])
    if cell["spent"] < cell["kappa"] and found["low"] <= 0:
        held = "undecided"
    return _claim(text, "Fig. 9", found, held, measure, unit="%")


def _exploiting(summary: dict[str, Any]) -> Iterator[Claim]:
    growth = summary.get("over_optimisation", {}).get("growth", {})
    searches = [name for name in growth if ":width=" in name]
    for strategy in searches:
        for measure, text in (
            ("gap", "The verifier's score of what {} chooses outruns the truth as the budget grows"),
            ("repeated", "More of what {} chooses repeats a step as the budget grows"),
        ):
            cell = growth[strategy][measure]
            if _known(cell):
                where = f"over_optimisation.growth[{strategy}].{measure}"
                yield _higher(text.format(figures.label(strategy)), "Figs. 24 to 29", cell, where)


def seen(claim: dict[str, Any]) -> str:
    """Return what was seen in words, e.g. `+2.4 points (1.1 to 3.8)`."""
    value, low, high, unit = (claim[key] for key in ("seen", "low", "high", "unit"))
    if unit == "times":
        return f"{value:.1f} times ({low:.1f} to {high:.1f})"
    sign = "+" if unit == "points" or claim["measure"].startswith("exchange") else ""
    name = " points" if unit == "points" else "%"
    return f"{value:{sign}.1f}{name} ({low:{sign}.1f} to {high:{sign}.1f})"


def tally(claims: Sequence[dict[str, Any]]) -> dict[str, int]:
    """Return how many claims held, did not, stay undecided, and are of something else than the run."""
    return {held: sum(claim["held"] == held for claim in claims) for held in get_args(Held)}


def render(claims: Sequence[dict[str, Any]], console: Console) -> None:
    """Print the claims with what was seen of each."""
    table = tables.table("claims of the paper and what this run shows, 95% intervals", ["claim", "seen", "held?"])
    styles = {"yes": "green", "no": "red", "undecided": "dim", "not applicable": "dim"}
    for claim in claims:
        shown, _, interval = seen(claim).partition(" (")
        held = Text(claim["held"], styles[claim["held"]])
        table.add_row(f"{claim['claim']}, {claim['source']}", tables.two_lines(shown, interval.rstrip(")")), held)
    console.print(table)


def csv_rows(claims: Sequence[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Return (claim, source, seen, low, high, unit, held, measure)."""
    keys = ("claim", "source", "seen", "low", "high", "unit", "held", "measure")
    return [tuple(claim[key] for key in keys) for claim in claims]
