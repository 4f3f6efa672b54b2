"""What Snell et al. 2024 claim, and whether a run shows it: from the numbers of `summary.json` alone.

Where a claim is looked at (a budget, a group of bins) is fixed by the config, never by what was seen. A claim whose
numbers a run does not have is left out. `verdicts.RULE` tells how claims are judged.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from statistics import NormalDist
from typing import Any

from ttcjax.eval.report import figures
from ttcjax.eval.sections.optimal import CHOSEN
from ttcjax.eval.stats.paired import WEIGHTED, searches
from ttcjax.eval.stats.verdicts import Beyond, Claim, Held, Unit, above, below, near, none_that_matters, unless

SAVED = 4
"""Times the compute that choosing by difficulty saves at most in the paper."""
TURNED = 0.38
"""Share of right answers that the paper's revision model turns wrong."""
_NEAR = 0.10
"""How far from `TURNED` still counts as the same."""
_NOTHING = 0.10
"""Accuracy below which nothing works."""
_KEPT = -0.01
"""A loss in accuracy that is none: one point."""
_MANY = 256
"""Generations from which on the paper sees plain selection turn down; fewer cannot show that it does not."""
_HARDLY = 0.02
"""A difference in accuracy that hardly matters."""

BARS = {
    "search": {"easy": (19.1, 2.2, 2.0), "medium": (-5.6, -35.6, -30.6), "hard": (0.0, -35.3, -52.9)},
    "revisions": {"easy": (21.6, 16.7, 5.4), "medium": (27.8, 3.5, -24.3), "hard": (11.8, -11.9, -37.2)},
}
"""The paper's exchange with a larger model, Fig. 1 right: in % of the larger one's accuracy, at R << 1, about 1, and
>> 1."""
_MARKED = (0.16, 0.79, 22.0)
"""The R of those bars."""


def summarise(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every claim that the summary has numbers on, as plain tables, see `verdicts.Claim`.

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
    text: str,
    source: str,
    paper: str,
    cell: dict[str, Any],
    held: Held,
    measure: str,
    *,
    unit: Unit = "points",
    by: float = 100.0,
    beyond: Beyond = "",
) -> Claim:
    seen, low, high = (round(by * cell[key], 4) for key in ("mean", "low", "high"))
    if held == "undecided" and not beyond and none_that_matters(low, high, unit):
        held = "no difference"
    return Claim(text, source, paper, seen, low, high, unit, held, measure, beyond)


def _higher(text: str, source: str, paper: str, cell: dict[str, Any], measure: str) -> Claim:
    """Return a claim that a difference is positive."""
    return _claim(text, source, paper, cell, above(cell["low"], cell["high"]), measure)


def _lower(text: str, source: str, paper: str, cell: dict[str, Any], measure: str) -> Claim:
    """Return a claim that a difference is negative."""
    return _claim(text, source, paper, cell, below(cell["low"], cell["high"]), measure)


def _known(cell: dict[str, Any] | None) -> bool:
    return cell is not None and cell.get("mean") is not None


def _turned(cell: dict[str, Any]) -> dict[str, Any]:
    """Return a difference the other way round."""
    return {"mean": -cell["mean"], "low": -cell["high"], "high": -cell["low"]}


def _compared(summary: dict[str, Any], a: str, b: str) -> dict[int, dict[str, Any]]:
    """Return the differences between two strategies, by budget."""
    return {
        row["n"]: {**row, "mean": row["difference"]} for row in summary["comparisons"] if (row["a"], row["b"]) == (a, b)
    }


def _voting(summary: dict[str, Any]) -> Iterator[Claim]:
    found = _compared(summary, WEIGHTED, "majority")
    if found:
        # At the largest budget the bank holds few blocks of samples, and a quarter of it is clearer.
        n = max(found) // 4 if max(found) // 4 in found else max(found)
        text = f"Best-of-N weighted by the PRM beats the majority vote (N = {n})"
        paper = "32% against 28% at 32 generations, 40% against 30% at 2048"
        yield _higher(text, "Fig. 14", paper, found[n], "comparisons")


def _searching(summary: dict[str, Any]) -> Iterator[Claim]:
    lead = summary.get("paired", {}).get("lead", {})
    for strategy in dict.fromkeys(row["a"] for row in summary["comparisons"]):
        found = _compared(summary, strategy, WEIGHTED)
        if not found:
            continue
        name, largest = figures.label(strategy), max(found)
        low = min((n for n in found if n >= 4), default=largest)
        if strategy.startswith("beam:"):
            if low < largest:
                text = f"Search ({name}) beats best-of-N weighted at a low budget (N = {low})"
                yield _higher(text, "Fig. 3 left", "34% against about 29% at 16 generations", found[low], "comparisons")
            if strategy in lead:
                text = f"Its lead over best-of-N weighted shrinks with budget ({name}, N = {low} to {largest})"
                paper = "the lead at small budgets is gone at 256"
                reason = None if found[low]["mean"] > 0 else f"here it has no lead at N = {low}"
                claim = _lower(text, "Fig. 3 left", paper, lead[strategy], f"paired.lead[{strategy}]")
                yield unless(reason, claim)
        if strategy.startswith(("beam:width=sqrt", "lookahead:")):
            text = f"Search ({name}) falls below best-of-N weighted at the highest budget (N = {largest})"
            paper = "below it at 256; beams of width 4 end level with it"
            yield _lower(text, "Fig. 3 left", paper, found[largest], "comparisons")
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
            paper = "lookahead does worst at equal budgets"
            yield _lower(text, "Fig. 3 left", paper, cell, "paired.strategies")


def _width(strategy: str) -> str:
    return strategy.partition("width=")[2].partition(",")[0]


def _by_difficulty(summary: dict[str, Any]) -> Iterator[Claim]:
    paired = summary.get("paired", {})
    growth = paired.get("growth", {})
    beams = [name for name in growth if name.startswith("beam:") and "5" in growth[name]]
    if not beams:
        return
    beam = "beam:width=4" if "beam:width=4" in beams else beams[0]
    name = figures.label(beam)
    cell = growth[beam]["1-2"]
    at = f"N = {cell['from']} to {cell['to']}"
    text = f"On easy questions (bins 1-2) {name} loses accuracy with budget ({at})"
    paper = "it degrades as the budget grows: it over-optimises the verifier"
    yield _lower(text, "Fig. 3 right", paper, cell, f"paired.growth[{beam}][1-2]")
    ahead = paired.get("beyond_weighted", {}).get(beam)
    if ahead is not None:
        cell = ahead["3-4"]
        text = f"On harder questions (bins 3-4) {name} beats best-of-N weighted (mean over {at})"
        paper = "it beats best-of-N at all budgets shown, 4 to 256"
        yield _higher(text, "Fig. 3 right", paper, cell, f"paired.beyond_weighted[{beam}][3-4]")
    hardest = summary.get("compute_optimal", {}).get("per_bin", {}).get("oracle", {}).get("5")
    if hardest is None:
        return
    n = max(map(int, hardest[beam]))
    cells = {name: cells[str(n)] for name, cells in hardest.items() if name != CHOSEN}
    best = max(cells, key=lambda name: cells[name]["mean"])
    what = f"all under {_NOTHING:.0%}, {figures.label(best)} best"
    text = f"On the hardest questions (bin 5) nothing works: {what} (N = {n})"
    cell = cells[best]
    # It is the best of some by what is judged, so its lower end is that of an interval for all of them (Bonferroni).
    wider = NormalDist().inv_cdf(1 - 0.025 / len(cells)) / NormalDist().inv_cdf(1 - 0.025)
    held = below(cell["mean"] - wider * (cell["mean"] - cell["low"]), cell["high"], _NOTHING)
    paper = "no method makes progress there: a few % at best"
    yield _claim(text, "Fig. 3 right", paper, cell, held, "compute_optimal.per_bin.oracle[5]", unit="%")


def _choosing(summary: dict[str, Any]) -> Iterator[Claim]:
    for notion in ("oracle", "predicted"):
        cells = summary.get("compute_optimal", {}).get(notion)
        if cells is None:
            continue
        where = f"compute_optimal.{notion}.compute_saved"
        saved = cells.get("compute_saved", {})
        what = f"Best-of-N weighted needs more compute than choosing by {notion} difficulty"
        paper = f"up to {SAVED} times as much: 16 generations do what 64 do"
        yield from _saving(what, saved, "Fig. 4", paper, where)
        n = budget_in_view(saved) or max(map(int, cells["minus_best"]))
        text = f"Choosing by {notion} difficulty beats the best single strategy (N = {n})"
        paper = "it is above each of its strategies at low budgets; with oracle difficulty at high ones too"
        yield _higher(text, "Fig. 4", paper, cells["minus_best"][str(n)], f"compute_optimal.{notion}.minus_best")


def budget_in_view(saved: dict[str, Any]) -> int | None:
    """Return the largest budget at which a saving of `SAVED` times could be seen, `None` for none.

    Beyond it the baseline's largest budget ends the comparison sooner.
    """
    return max((n for n in map(int, saved) if n > 1 and n * SAVED <= max(map(int, saved))), default=None)


def _saving(what: str, saved: dict[str, Any], source: str, paper: str, where: str) -> Iterator[Claim]:
    """Claim that the baseline needs more than the budget, at the largest budget at which `SAVED` could be seen.

    To take the budget where most is saved would find a saving by chance where there is none.
    """
    n = budget_in_view(saved)
    if n is None:
        return
    found = saved[str(n)]
    cell = {"mean": found["times"], "low": found["low"], "high": found["high"]}
    beyond: Beyond = "" if found["high_reached"] else "high" if found["reached"] else "seen"
    text = f"{what} (N = {n}; {max(map(int, saved)) / n:g} times could be seen)"
    held = above(cell["low"], cell["high"], 1.0)
    yield _claim(text, source, paper, cell, held, where, unit="times", by=1.0, beyond=beyond)


def _aggregating(summary: dict[str, Any]) -> Iterator[Claim]:
    rows = summary.get("paired", {}).get("aggregation", [])
    names = {"last": "the last step's score", "min": "the lowest step's", "product": "the product of all steps'"}
    paper = "in order: last, lowest, majority vote, product"
    for a, b in (("last", "min"), ("min", "product")):
        cells = {row["n"]: row for row in rows if (row["a"], row["b"]) == (a, b)}
        if cells:
            text = f"As a solution's score {names[a]} beats {names[b]} (N = {max(cells)})"
            yield _higher(text, "Fig. 13", paper, cells[max(cells)], "paired.aggregation")
    cells = {row["n"]: row for row in rows if (row["a"], row["b"]) == ("product", "majority")}
    if cells:
        text = f"Votes weighted by the product of all steps' scores fall below the majority vote (N = {max(cells)})"
        yield _lower(text, "Fig. 13", paper, cells[max(cells)], "paired.aggregation")


def _outcome(summary: dict[str, Any]) -> Iterator[Claim]:
    orm = summary.get("orm")
    if orm is None:
        return
    cells = {row["n"]: row for row in orm["prm_minus_orm"] if row["selector"] == "weighted"}
    n = max(cells)
    reason = orm.get("incomparable")
    text = f"The PRM beats the ORM in best-of-N weighted (N = {n})"
    paper = "40% against 35% at 2048 generations"
    yield unless(reason, _higher(text, "Fig. 14", paper, cells[n], "orm.prm_minus_orm"))
    if "gap_growth" in orm:
        text = f"The PRM's lead over the ORM grows with the budget (N = {orm['gap_growth']['from']} to {n})"
        paper = "from 2 points at 8 generations to 5 at 2048"
        yield unless(reason, _higher(text, "Fig. 14", paper, orm["gap_growth"], "orm.gap_growth"))
    for name in ("orm", "prm"):
        text = f"By the {name.upper()}, best-of-N weighted beats plain best-of-N (N = {n})"
        cell = orm["weighted_minus_best"][name][str(n)]
        yield _higher(text, "ICLR Fig. 13", "votes are better with either verifier", cell, "orm.weighted_minus_best")
    if "late_gain" in orm:
        plain, weighted = orm["late_gain"]["orm"]["best"], orm["late_gain"]["orm"]["weighted"]
        paper = "plain selection by the ORM falls at high budgets, votes do not"
        text = f"Plain best-of-N by the ORM turns down at high budgets (N = {plain['from']} to {n})"
        claim = _lower(text, "ICLR Fig. 13", paper, plain, "orm.late_gain.orm.best")
        yield replace(claim, held="not measured") if claim.held == "no" and n < _MANY else claim
        text = (
            f"Best-of-N weighted by the ORM does not turn down, or by a point at most (N = {weighted['from']} to {n})"
        )
        held = above(weighted["low"], weighted["high"], _KEPT)
        yield _claim(text, "ICLR Fig. 13", paper, weighted, held, "orm.late_gain.orm.weighted")


def _revising(summary: dict[str, Any]) -> Iterator[Claim]:
    revision = summary.get("revision", {})
    late = revision.get("late_steps")
    if late is not None:
        steps = f"steps {late['from']} to {late['to']} less"
        paper = "18% at step 1, 21.5% at 5, about 24% from 15 to 64"
        text = f"Revising raises pass@1 ({steps} the first)"
        yield _higher(text, "Fig. 6 left", paper, late["minus_first"], "revision.late_steps.minus_first")
        text = f"Revising raises pass@1 past the steps that training had ({steps} step {late['trained']})"
        yield _higher(text, "Fig. 6 left", paper, late["minus_trained"], "revision.late_steps.minus_trained")
    turned = revision.get("right_to_wrong")
    if turned is not None and _known(turned):
        text = f"Of right answers about {TURNED:.0%} turn wrong at the next step (within {100 * _NEAR:.0f} points)"
        held = near(turned["low"], turned["high"], TURNED, _NEAR)
        paper = f"{TURNED:.0%}, by a model that has seen wrong answers only"
        found = _claim(text, "Section 6.1", paper, turned, held, "revision.right_to_wrong", unit="%")
        yield unless(revision.get("other_recipe"), found)
    if revision.get("rest_em"):
        rows = [row for row in revision["sequential_minus_parallel"] if row["selector"] == "majority"]
        if rows:
            text = f"After ReST^EM training one chain is worse than parallel answers (majority, N = {rows[-1]['n']})"
            paper = "about 34% against 38%"
            yield _lower(text, "Fig. 16", paper, rows[-1], "revision.sequential_minus_parallel")


def _splitting(summary: dict[str, Any]) -> Iterator[Claim]:
    revision = summary.get("revision", {})
    names = {"hierarchical": "the verifier", "majority": "majority"}
    for rule, by in names.items():
        rows = [row for row in revision.get("sequential_minus_parallel", []) if row["selector"] == rule]
        if rows:
            text = f"One chain beats as many parallel answers, selected by {by} (N = {rows[-1]['n']})"
            paper = "narrowly: 41% against 39% at 64, selected by the verifier"
            yield _higher(text, "Fig. 6 right", paper, rows[-1], "revision.sequential_minus_parallel")
    by_ease = revision.get("by_ease")
    if by_ease is None:
        return
    for rule, source in (("hierarchical", "Fig. 7 right"), ("majority", "Fig. 10 right")):
        cells, at = by_ease[rule], f"{names[rule]}, N = {by_ease['n']}"
        easy = cells["easy"]["sequential_minus_parallel"]
        if rule == "hierarchical":
            text = f"On easy questions (bins 1-2) one chain is better than parallel answers ({at})"
            yield _higher(text, source, "easy questions are best in one chain", easy, "revision.by_ease.easy")
        else:
            text = f"On easy questions (bins 1-2) one chain is as good as parallel answers, within 2 points ({at})"
            held = near(easy["low"], easy["high"], 0.0, _HARDLY)
            paper = "with majority the ratio hardly matters on easy questions"
            yield _claim(text, source, paper, easy, held, "revision.by_ease.easy")
        if "hard" in cells:
            for other, key in (("parallel answers", "parallel"), ("one chain", "sequential")):
                text = f"On hard questions (bins 3-5) a ratio in between beats {other} ({at})"
                cell = cells["hard"][f"between_minus_{key}"]
                yield _higher(text, source, "hard questions want a ratio in between", cell, "revision.by_ease.hard")


def _choosing_ratios(summary: dict[str, Any]) -> Iterator[Claim]:
    chosen = summary.get("revision", {}).get("compute_optimal", {}).get("hierarchical", {}).get("chosen", {})
    for notion, cells in chosen.items():
        where = f"revision.compute_optimal.hierarchical.{notion}"
        what = f"Parallel answers need more compute than ratios chosen by {notion} difficulty"
        paper = f"up to {SAVED} times as much: 64 generations do what 256 do"
        yield from _saving(what, cells["compute_saved"], "Fig. 8", paper, f"{where}.compute_saved")
        n = max(cells["minus_parallel"], key=int)
        text = f"Ratios chosen by {notion} difficulty beat parallel answers (the verifier, N = {n})"
        paper = "about 44% (oracle) and 42% (predicted) against 40.5% at 256"
        yield _higher(text, "Fig. 8", paper, cells["minus_parallel"][n], f"{where}.minus_parallel")


def _verifying_revisions(summary: dict[str, Any]) -> Iterator[Claim]:
    rows = summary.get("revision", {}).get("verifier_differences", [])
    for other, text, paper in (
        ("prm", "On revisions an ORM trained on them beats the PRM of base samples", "41% against 40.5% at 64"),
        ("no_history", "The ORM of revisions gains from the answers before in view", "it gains slightly"),
    ):
        cells = {row["n"]: row for row in rows if (row["a"], row["b"]) == ("history", other)}
        cells |= {row["n"]: _turned(row) for row in rows if (row["a"], row["b"]) == (other, "history")}
        if cells:
            n = max(cells)
            yield _higher(f"{text} (one chain of {n})", "Fig. 15", paper, cells[n], "revision.verifier_differences")


def _weak(summary: dict[str, Any]) -> Iterator[Claim]:
    found = summary.get("weak_verifiers", {}).get("minus_weaker", {})
    for name, text in (
        ("flipped", "A PRM with a fifth of its scores flipped beats random scores"),
        ("standard", "The PRM beats itself with a fifth of its scores flipped"),
    ):
        if name in found:
            n = max(found[name], key=int)
            paper = "the better the verifier, the more test-time compute brings"
            where = "weak_verifiers.minus_weaker"
            yield _higher(f"{text} (N = {n})", "ICLR Fig. 17", paper, found[name][n], where)


def _exchanging(summary: dict[str, Any]) -> Iterator[Claim]:
    """Claim the sign of each bar that the paper prints."""
    exchange = summary.get("exchange")
    if exchange is None:
        return
    times = f"{exchange['size_ratio']:.0f} times larger model"
    for source, groups in BARS.items():
        bars = exchange["sources"].get(source, {}).get("bars", {})
        for group, printed in groups.items():
            cells = {cell["r"]: cell for cell in bars.get(group, []) if cell["convention"] == "v1"}
            for r, percent in zip(_MARKED, printed, strict=True):
                if percent and r in cells and _known(cells[r]["relative"]):
                    yield _bar(source, group, times, cells[r], percent)


def _bar(source: str, group: str, times: str, cell: dict[str, Any], percent: float) -> Claim:
    """Return a claim at equal FLOPs. A smaller model that loses with less than its due may win with all of it."""
    found = cell["relative"]
    verb, held = ("beats", above) if percent > 0 else ("loses to", below)
    short = cell["spent"] < cell["kappa"]
    due = f", judged by {cell['spent']:.0f} of {cell['kappa']:.0f} generations" if short else ""
    text = f"On {group} questions the small model with {source} {verb} the {times} (R = {cell['r']:g}{due})"
    verdict = "not measured" if short and found["low"] <= 0 else held(found["low"], found["high"])
    where = f"exchange.sources.{source}.bars.{group}"
    return _claim(text, "Fig. 1 right", f"{percent:+.1f}%", found, verdict, where, unit="%")


def _exploiting(summary: dict[str, Any]) -> Iterator[Claim]:
    found = summary.get("over_optimisation", {})
    paper = "examples of beams that repeat themselves, or are over in a step or two, with high scores"
    for strategy, beyond in found.get("growth_beyond", {}).items():
        if strategy not in searches(found["growth_beyond"]):
            continue
        name = figures.label(strategy)
        # The best of many scores is above the truth in any selection: a search exploits its verifier by what it adds.
        for baseline, growth in beyond.items():
            other = figures.label(baseline)
            text = f"The score of what {name} chooses outruns the truth with budget, by more than {other}"
            if _known(growth["gap"]):
                where = f"over_optimisation.growth_beyond[{strategy}][{baseline}].gap"
                yield _higher(text, "Figs. 24 to 29", paper, growth["gap"], where)
        cells = found["chosen"][strategy]
        n = max(map(int, cells))
        cell = cells[str(n)].get("repeated_beyond_reference")
        if _known(cell):
            text = f"What {name} chooses repeats a step more often than reference solutions do (N = {n})"
            where = f"over_optimisation.chosen[{strategy}][{n}].repeated_beyond_reference"
            yield _higher(text, "Figs. 24 to 29", paper, cell, where)
