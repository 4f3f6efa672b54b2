"""Claims of the paper, from summaries in which they hold, do not, or cannot be told."""

import copy
import dataclasses
import io
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.eval.told import summary_of
from ttcjax.eval.report import report, verdicts
from ttcjax.eval.report.coding import encode
from ttcjax.eval.sections.paired import WEIGHTED
from ttcjax.eval.sections.spending import larger_model
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.eval.stats.savings import compute_saved

NUMBERS = st.floats(-1, 1)


def judge(sections):
    """Claims on a summary that has these sections, as far as claims read them."""
    return report.judged(summary_of(sections)).claims


def cell(mean, spread=0.01, **more):
    return {"mean": mean, "low": mean - spread, "high": mean + spread, **more}


def by_budget(mean, spread=0.01):
    return {str(n): cell(mean, spread) for n in (1, 4, 16, 64)}


def save(times, low, high, reached=True):
    return {"times": times, "low": low, "high": high, "reached": reached, "high_reached": reached}


def compared(a, b, differences):
    return [{"a": a, "b": b, "n": n, "mean": d, "low": d - 0.01, "high": d + 0.01} for n, d in differences.items()]


def bars(source):
    """Bars as the paper prints them, each at three R, and one of another convention."""
    row = {"convention": "v1", "kappa": 1.0, "spent": 1.0}
    found = {
        group: [
            {**row, "r": r, "relative": cell(percent / 100)}
            for r, percent in zip((0.16, 0.79, 22.0), printed, strict=False)
        ]
        for group, printed in larger_model.BARS[source].items()
    }
    found["hard"].append({**row, "convention": "strict", "r": 22.0, "relative": cell(0.9)})
    return found


def paper():
    """A summary of a run in which every claim holds."""
    beam, lookahead = "beam:width=4", "lookahead:width=4,k=3"
    saved = {str(n): save(t, t - 0.1, t + 0.1) for n, t in ((1, 9.0), (8, 5.0), (16, 3.0))}
    saved["64"] = save(1.0, 1.0, 1.0, False)
    notion = {"minus_best": by_budget(0.02), "compute_saved": saved}
    differences = [{"n": n, "selector": rule, **cell(0.02)} for rule in ("hierarchical", "majority") for n in (4, 64)]
    hard = {"between_minus_parallel": cell(0.03), "between_minus_sequential": cell(0.03)}
    return {
        "paired": {
            "comparisons": [
                *compared(WEIGHTED, "majority", {1: 0.0, 16: 0.05, 64: 0.05}),
                *compared(beam, WEIGHTED, {1: 0.0, 4: 0.05, 64: -0.05}),
                *compared(lookahead, WEIGHTED, {1: 0.0, 4: -0.05, 64: -0.05}),
            ],
            "aggregation": [
                {"a": a, "b": b, "n": n, **cell(mean)}
                for a, b, mean in (("last", "min", 0.02), ("min", "product", 0.02), ("product", "majority", -0.02))
                for n in (1, 64)
            ],
            "strategies": [{"a": beam, "b": lookahead, "n": 64, **cell(0.03)}],
            "growth": {
                beam: {
                    name: cell(mean, **{"from": 4, "to": 64})
                    for name, mean in (("all", 0.0), ("1-2", -0.05), ("3-4", 0.05), ("5", 0.0))
                }
            },
            "beyond_weighted": {beam: {"3-4": cell(0.05, **{"from": 4, "to": 64})}},
            "lead": {beam: cell(-0.05)},
        },
        "compute_optimal": {
            "oracle": notion,
            "predicted": notion,
            "per_bin": {
                "oracle": {"5": {beam: by_budget(0.03), "majority": by_budget(0.01), "chosen": by_budget(0.9)}}
            },
        },
        "orm": {
            "prm_minus_orm": [{"n": n, "selector": s, **cell(0.04)} for s in ("weighted", "best") for n in (1, 64)],
            "gap_growth": cell(0.03, **{"from": 2}),
            "weighted_minus_best": {name: by_budget(0.02) for name in ("orm", "prm")},
            "late_gain": {
                "orm": {"best": cell(-0.03, **{"from": 16}), "weighted": cell(0.03, **{"from": 16})},
                "prm": {"best": cell(0.0, **{"from": 16}), "weighted": cell(0.02, **{"from": 16})},
            },
        },
        "revision": {
            "late_steps": {"from": 6, "to": 64, "trained": 4, "minus_first": cell(0.06), "minus_trained": cell(0.03)},
            "right_to_wrong": cell(0.38),
            "rest_em": False,
            "sequential_minus_parallel": differences,
            "by_ease": {
                "n": 64,
                "hierarchical": {"easy": {"sequential_minus_parallel": cell(0.02)}, "hard": hard},
                "majority": {"easy": {"sequential_minus_parallel": cell(0.005)}, "hard": hard},
            },
            "verifier_differences": [
                {"a": "history", "b": name, "n": n, **cell(0.02)} for name in ("prm", "no_history") for n in (1, 64)
            ],
        },
        "revision_by_difficulty": {
            "hierarchical": {"chosen": {"oracle": {"minus_parallel": by_budget(0.03), "compute_saved": saved}}}
        },
        "weak_verifiers": {"minus_weaker": {name: by_budget(0.02) for name in ("flipped", "standard")}},
        "exchange": {
            "size_ratio": 14.2,
            "sources": {source: {"bars": bars(source)} for source in larger_model.BARS},
        },
        "over_optimisation": {
            "growth_beyond": {
                beam: {name: {"gap": cell(0.1)} for name in (WEIGHTED, "majority")},
                "majority": {WEIGHTED: {"gap": cell(0.1)}},
            },
            "chosen": {beam: {n: {"repeated_beyond_reference": cell(0.1)} for n in ("1", "64")}},
        },
    }


def mirrored(value: Any) -> Any:
    """The same summary with every difference, and every number, on the other side of what claims ask for."""
    if isinstance(value, dict):
        if {"low", "high"} <= set(value):
            turned = {"low": -value["high"], "high": -value["low"]}
            turned |= {key: -value[key] for key in ("mean", "times") if key in value}
            return value | turned
        return {key: mirrored(item) for key, item in value.items()}
    return [mirrored(item) for item in value] if isinstance(value, list) else value


def vague(value: Any) -> Any:
    if isinstance(value, dict):
        if {"low", "high"} <= set(value):
            return value | {"low": -50.0, "high": 50.0}
        return {key: vague(item) for key, item in value.items()}
    return [vague(item) for item in value] if isinstance(value, list) else value


EITHER_WAY = ("On the hardest questions (bin 5) nothing works", "On easy questions (bins 1-2) one chain is as good")
"""Claims that hold on both sides of 0."""
NOTHING_WORKS = "On the hardest questions (bin 5) nothing works"


def test_a_run_like_the_paper_shows_all_of_it():
    found = judge(paper())
    assert len(found) == 58
    assert {claim.claim: claim.held for claim in found if claim.held != "yes"} == {}
    assert len({claim.claim for claim in found}) == len(found), "two claims read the same"
    json.dumps(encode(found), allow_nan=False)


def test_a_run_unlike_it_shows_none():
    for claim in judge(mirrored(paper())):
        expected = "yes" if claim.claim.startswith(EITHER_WAY) else "no"
        if claim.claim.startswith("Its lead over best-of-N"):
            expected = "not applicable"  # Without a lead none can shrink.
        if claim.claim.startswith("Plain best-of-N by the ORM turns down"):
            expected = "not measured"  # 64 generations are too few to say that it does not.
        assert claim.held == expected, claim.claim
    worked = paper()
    worked["compute_optimal"]["per_bin"]["oracle"]["5"]["majority"] = by_budget(0.3)
    (claim,) = (claim for claim in judge(worked) if claim.claim.startswith(NOTHING_WORKS))
    assert (claim.held, claim.seen) == ("no", 30.0)


def test_who_loses_with_less_than_its_due_may_yet_win():
    full = paper()
    for source in full["exchange"]["sources"].values():
        for row in (row for rows in source["bars"].values() for row in rows if row["relative"]):
            row |= {"kappa": 258.0, "spent": 64.0}
            row["relative"] = cell(-0.3) if row["r"] < 1 else cell(0.3)
    held = {c.claim: c.held for c in judge(full) if "judged by 64 of 258 generations" in c.claim}
    assert len(held) == 17
    assert {held[claim] for claim in held if "R = 0.16" in claim} == {"not measured"}
    assert {held[claim] for claim in held if "beats" in claim and "R = 22" in claim} == {"yes"}
    assert {held[claim] for claim in held if "loses" in claim and "R = 22" in claim} == {"no"}


def test_wide_intervals_decide_nothing():
    assert {claim.held for claim in judge(vague(paper()))} == {"undecided"}


def test_each_claim_stands_beside_what_the_paper_says():
    for claim in judge(paper()):
        assert claim.paper, claim.claim
    bars = [claim for claim in judge(paper()) if claim.source == "Fig. 1 right"]
    by_text = {claim.claim: claim.paper for claim in bars}
    assert by_text["On easy questions the small model with search beats the 14 times larger model (R = 22)"] == "+2.0%"
    assert by_text["On hard questions the small model with revisions beats the 14 times larger model (R = 0.16)"] == (
        "+11.8%"
    )
    medium = [text for text in by_text if text.startswith("On medium questions the small model with search")]
    assert len(medium) == 3
    assert all("loses" in text for text in medium), "search on medium questions wins nowhere in the paper"


def test_what_a_run_does_not_have_is_left_out():
    full = paper()
    assert judge({}) == ()
    everything = judge(full)
    for key in full:
        part = copy.deepcopy(full)
        del part[key]
        found = judge(part)
        assert 0 < len(found) < len(everything), key
        texts = [claim.claim for claim in found]
        assert texts == [claim.claim for claim in everything if claim.claim in texts], "order or words changed"
    # Estimates that do not exist are null.
    full["revision"]["right_to_wrong"] = dict.fromkeys(("mean", "low", "high"))
    full["revision"]["late_steps"] = None
    full["over_optimisation"]["growth_beyond"]["beam:width=4"][WEIGHTED]["gap"] = dict.fromkeys(("mean", "low", "high"))
    del full["over_optimisation"]["chosen"]["beam:width=4"]["64"]["repeated_beyond_reference"]
    assert len(judge(full)) == len(everything) - 5


def test_a_search_exploits_its_verifier_by_what_it_adds_to_best_of_n():
    """A gap that grows for all of them alike is no sign, nor are steps that references repeat as often."""
    same = paper()
    beyond = same["over_optimisation"]["growth_beyond"]["beam:width=4"]
    beyond[WEIGHTED]["gap"] = {"mean": 0.0, "low": -0.01, "high": 0.01}
    beyond["majority"]["gap"] = {"mean": -0.1, "low": -0.2, "high": -0.05}
    same["over_optimisation"]["growth"] = {"beam:width=4": {"gap": cell(0.1), "repeated": cell(0.1)}}
    same["over_optimisation"]["chosen"]["beam:width=4"]["64"] = {
        "repeated": cell(0.2),
        "repeated_beyond_reference": {"mean": 0.0, "low": -0.01, "high": 0.01},
    }
    held = {c.claim: c.held for c in judge(same) if c.measure.startswith("over_optimisation")}
    assert held == {
        "The score of what beam, width 4 chooses outruns the truth with budget, by more than best-of-N weighted": (
            "undecided"
        ),
        "The score of what beam, width 4 chooses outruns the truth with budget, by more than majority": "no",
        "What beam, width 4 chooses repeats a step more often than reference solutions do (N = 64)": "undecided",
    }


def test_rest_em_is_judged_where_it_was_trained():
    full = paper()
    full["revision"]["rest_em"] = True
    (claim,) = (claim for claim in judge(full) if "ReST" in claim.claim)
    assert (claim.held, claim.source) == ("no", "Fig. 16"), "one chain is better here, the paper says worse"


def test_the_budget_of_a_saving_is_fixed_beforehand():
    """The largest budget at which 4 times could be seen, whatever was saved at others; lower bounds are said to be."""
    full = paper()

    def judged(saved):
        full["compute_optimal"]["oracle"] = {"minus_best": by_budget(0.02), "compute_saved": saved}
        found = [c for c in judge(full) if c.measure == "compute_optimal.oracle.compute_saved"]
        return found[0] if found else None

    rest = {"4": save(9.0, 8.0, 10.0), "64": save(1.0, 1.0, 1.0, False)}
    claim = judged({**rest, "16": save(1.2, 0.8, 1.9)})
    assert claim is not None
    assert (claim.seen, claim.held, claim.beyond) == (1.2, "undecided", "")
    assert "(N = 16; 4 times could be seen)" in claim.claim
    claim = judged({**rest, "16": save(4.0, 1.1, 4.0, False)})
    assert claim is not None
    assert (claim.held, claim.beyond) == ("yes", "seen")
    assert verdicts.seen(claim) == "at least 4.0 times (1.1 to 4.0 or more)"
    claim = judged({**rest, "16": {**save(2.0, 0.5, 4.0), "high_reached": False}})
    assert claim is not None
    assert verdicts.seen(claim) == "2.0 times (0.5 to 4.0 or more)"
    assert judged({"64": rest["64"]}) is None


def test_nothing_saved_is_seldom_claimed():
    """Two strategies of one law, 300 times: "more than once" is held about as often as 2.5 %, and at most 6 %.

    The budget where most is saved would be claimed several times as often, which is checked too. A true 2.5 % is above
    6 % once in 3,000 such tests.
    """
    rng = np.random.default_rng(0)
    budgets, held, flattered = (1, 2, 4, 8, 16, 32, 64), [], []
    bootstrap = Bootstrap(200, 200, 0)
    for _ in range(300):
        ease = rng.beta(1, 1, 200)
        chance = {n: 1 - (1 - 0.5 * ease) ** (1 + np.log2(n) / 3) for n in budgets}
        base, other = ({n: rng.binomial(16, p) / 16 for n, p in chance.items()} for _ in range(2))
        saved = {n: compute_saved(base, n, bootstrap.means(other[n]), bootstrap) for n in budgets}
        held.append(saved[16].low > 1)
        flattered.append(max(saved[n].low for n in (2, 4, 8, 16)) > 1)
    assert np.mean(held) < 0.06
    assert np.mean(flattered) > 1.5 * np.mean(held), "the check could not tell a budget chosen afterwards"


@given(NUMBERS, NUMBERS, NUMBERS)
def test_decisions_follow_the_interval(a, b, limit):
    low, high = min(a, b), max(a, b)
    opposite = {"yes": "no", "no": "yes", "undecided": "undecided"}
    assert verdicts.above(low, high, limit) == opposite[verdicts.below(low, high, limit)]
    if low <= limit <= high:
        assert verdicts.above(low, high, limit) == "undecided"
    near = verdicts.near(low, high, limit, 0.1)
    if near == "yes":
        assert max(abs(low - limit), abs(high - limit)) <= 0.1 + 1e-9
    elif near == "no":
        assert min(abs(low - limit), abs(high - limit)) > 0.1 - 1e-9
        assert not low <= limit <= high


def test_a_difference_of_nothing_decides_nothing():
    assert verdicts.above(0.0, 0.0) == verdicts.below(0.0, 0.0) == "undecided"


@pytest.mark.parametrize(
    ("unit", "low", "high", "none"),
    [
        ("points", -0.4, 0.3, True),
        ("points", 0.1, 0.4, False),  # a difference, if a small one
        ("points", -0.6, 0.3, False),
        ("points", -0.1, 0.7, False),
        ("times", 0.95, 1.05, True),
        ("times", 0.95, 1.2, False),
        ("times", 0.8, 1.05, False),
        ("times", -0.1, 0.1, False),
        ("%", -0.1, 0.1, False),
    ],
)
def test_no_difference_is_said_where_none_that_matters_is_left(unit, low, high, none):
    assert verdicts.none_that_matters(low, high, unit) is none


def test_a_claim_of_a_gain_that_is_none_is_decided():
    cell = Estimate(0.0001, -0.001, 0.002)
    assert verdicts.higher("", "", "", cell, "").held == verdicts.lower("", "", "", cell, "").held == "no difference"
    assert verdicts.higher("", "", "", Estimate(0.0001, -0.001, 0.02), "").held == "undecided"
    saved = Estimate(1.0, 0.95, 1.05)
    found = verdicts.judged("", "", "", saved, "undecided", "", unit="times", by=1.0, beyond="high")
    assert found.held == "undecided", "more than the measured budgets have is not seen"


@pytest.mark.parametrize(
    ("unit", "measure", "text"),
    [
        ("points", "comparisons", "+2.4 points (-1.0 to +3.0)"),
        ("%", "revision.right_to_wrong", "2.4% (-1.0 to 3.0)"),
        ("%", "exchange.sources", "+2.4% (-1.0 to +3.0)"),
        ("times", "compute_optimal", "2.4 times (-1.0 to 3.0)"),
    ],
)
def test_what_was_seen_in_words(unit, measure, text):
    claim = verdicts.Claim("", "", "", 2.4, -1.0, 3.0, unit, "undecided", measure, "")
    assert verdicts.seen(claim) == text


def test_what_is_not_the_papers_is_not_judged():
    """Right answers that turn wrong hang on what was in view in training; PRM against ORM on equal training."""
    summary = paper()
    summary["revision"]["other_recipe"] = "here right answers are in view"
    summary["orm"]["incomparable"] = "the ORM was trained less"
    found, before = judge(summary), judge(paper())
    changed = {new.claim: (new, old) for new, old in zip(found, before, strict=True) if new != old}
    assert {new.measure for new, _ in changed.values()} == {
        *("revision.right_to_wrong", "orm.prm_minus_orm", "orm.gap_growth")
    }
    for text, (new, old) in changed.items():
        reason = "here right answers are in view" if "revision" in new.measure else "the ORM was trained less"
        assert text == f"{old.claim}; {reason}"
        assert new == dataclasses.replace(old, claim=text, held="not applicable"), "what was seen is still shown"
    assert {held: n for held, n in verdicts.tally(found).items() if n} == {"yes": len(found) - 3, "not applicable": 3}
    console = Console(file=io.StringIO(), width=80)
    verdicts.render(found, console)
    assert console.file.getvalue().count("applicable") == 3  # type: ignore[attr-defined]


def test_verifiers_of_revisions_are_compared_whichever_selects():
    """The same difference, written the other way round where the PRM selects."""
    summary = paper()
    row = next(r for r in summary["revision"]["verifier_differences"] if (r["b"], r["n"]) == ("prm", 64))
    row |= {"a": "prm", "b": "history", "mean": -0.02, "low": -0.04, "high": -0.01}
    [claim] = [c for c in judge(summary) if "beats the PRM of base samples" in c.claim]
    assert "one chain of 64" in claim.claim
    assert (claim.seen, claim.low, claim.high) == pytest.approx((2.0, 1.0, 4.0))
    assert claim.held == "yes"


def test_claims_are_printed_and_written():
    found = judge(paper())
    assert verdicts.tally(found)["yes"] == len(found)
    assert verdicts.in_words(found) == f"{len(found)} of {len(found)} claims hold, 0 do not"
    some = [found[0], dataclasses.replace(found[1], held="no"), dataclasses.replace(found[2], held="not measured")]
    assert verdicts.in_words(some) == "1 of 3 claims hold, 1 do not, 1 not measured"
    assert len(verdicts.csv_rows(found)) == len(found)
    console = Console(file=io.StringIO(), width=80)
    verdicts.render(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("yes") == len(found)
