"""Claims of the paper, from summaries in which they hold, do not, or cannot be told."""

import copy
import io
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from ttcjax.eval import claims

WEIGHTED = claims.WEIGHTED
NUMBERS = st.floats(-1, 1)


def cell(mean, spread=0.01, **more):
    return {"mean": mean, "low": mean - spread, "high": mean + spread, **more}


def by_budget(mean, spread=0.01):
    return {str(n): cell(mean, spread) for n in (1, 4, 16, 64)}


def compared(a, b, differences):
    return [
        {"a": a, "b": b, "n": n, "difference": d, "low": d - 0.01, "high": d + 0.01} for n, d in differences.items()
    ]


def paper():
    """A summary of a run in which every claim holds."""
    beam, lookahead = "beam:width=4", "lookahead:width=4,k=3"
    saved = {str(n): {"times": t, "low": t - 0.1, "high": t + 0.1, "reached": True} for n, t in ((1, 9.0), (8, 5.0))}
    saved["64"] = {"times": 1.0, "low": 1.0, "high": 1.0, "reached": False}
    notion = {"minus_best": by_budget(0.02), "compute_saved": saved}
    differences = [{"n": n, "selector": rule, **cell(0.02)} for rule in ("hierarchical", "majority") for n in (4, 64)]
    hard = {"between_minus_parallel": cell(0.03), "between_minus_sequential": cell(0.03)}
    bars = {
        "easy": [
            {"convention": "v1", "r": r, "kappa": 1.0, "spent": 1.0, "relative": cell(0.2)} for r in (0.16, 0.79, 22.0)
        ],
        "medium": [{"convention": "v1", "r": 0.16, "kappa": 1.0, "spent": 1.0, "relative": cell(0.2)}],
        "hard": [
            {"convention": "v1", "r": 0.16, "kappa": 1.0, "spent": 1.0, "relative": None},
            {"convention": "v1", "r": 22.0, "kappa": 1.0, "spent": 1.0, "relative": cell(-0.4)},
            {"convention": "strict", "r": 99.0, "kappa": 1.0, "spent": 1.0, "relative": cell(0.9)},
        ],
    }
    return {
        "comparisons": [
            *compared(WEIGHTED, "majority", {1: 0.0, 16: 0.05, 64: 0.05}),
            *compared(beam, WEIGHTED, {1: 0.0, 4: 0.05, 64: -0.05}),
            *compared(lookahead, WEIGHTED, {1: 0.0, 4: -0.05, 64: -0.05}),
        ],
        "paired": {
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
                **{
                    rule: {"easy": {"sequential_minus_parallel": cell(0.02)}, "hard": hard}
                    for rule in ("hierarchical", "majority")
                },
            },
            "compute_optimal": {
                "hierarchical": {"chosen": {"oracle": {"minus_parallel": by_budget(0.03), "compute_saved": saved}}}
            },
            "verifier_differences": [
                {"a": "history", "b": name, "n": n, **cell(0.02)} for name in ("prm", "no_history") for n in (1, 64)
            ],
        },
        "weak_verifiers": {"minus_weaker": {name: by_budget(0.02) for name in ("flipped", "standard")}},
        "exchange": {
            "size_ratio": 14.2,
            "sources": {source: {"bars": bars} for source in ("search", "revisions")},
        },
        "over_optimisation": {
            "growth": {beam: {name: cell(0.1) for name in ("gap", "repeated")}, "majority": {"gap": cell(0.1)}}
        },
    }


def mirrored(value: Any) -> Any:
    """The same summary with every difference, and every number, on the other side of what claims ask for."""
    if isinstance(value, dict):
        if {"low", "high"} <= set(value):
            turned = {"low": -value["high"], "high": -value["low"]}
            turned |= {key: -value[key] for key in ("mean", "difference", "times") if key in value}
            return value | turned
        return {key: mirrored(item) for key, item in value.items()}
    return [mirrored(item) for item in value] if isinstance(value, list) else value


def vague(value: Any) -> Any:
    if isinstance(value, dict):
        if {"low", "high"} <= set(value):
            return value | {"low": -50.0, "high": 50.0}
        return {key: vague(item) for key, item in value.items()}
    return [vague(item) for item in value] if isinstance(value, list) else value


NOTHING_WORKS = "On the hardest questions (bin 5) nothing works"


def test_a_run_like_the_paper_shows_all_of_it():
    found = claims.summarise(paper())
    assert len(found) == 47
    assert {claim["claim"]: claim["held"] for claim in found if claim["held"] != "yes"} == {}
    assert len({claim["claim"] for claim in found}) == len(found), "two claims read the same"
    json.dumps(found, allow_nan=False)


def test_a_run_unlike_it_shows_none():
    for claim in claims.summarise(mirrored(paper())):
        # An accuracy cannot be mirrored: below 0 it is still below the limit.
        expected = "yes" if claim["claim"].startswith(NOTHING_WORKS) else "no"
        assert claim["held"] == expected, claim["claim"]
    worked = paper()
    worked["compute_optimal"]["per_bin"]["oracle"]["5"]["majority"] = by_budget(0.3)
    (claim,) = (claim for claim in claims.summarise(worked) if claim["claim"].startswith(NOTHING_WORKS))
    assert (claim["held"], claim["seen"]) == ("no", 30.0)


def test_who_loses_with_less_than_its_due_may_yet_win():
    full = paper()
    for source in full["exchange"]["sources"].values():
        for row in (row for rows in source["bars"].values() for row in rows if row["relative"]):
            row |= {"kappa": 258.0, "spent": 64.0}
            row["relative"] = cell(-0.3) if row["r"] < 1 else cell(0.3)
    held = {c["claim"]: c["held"] for c in claims.summarise(full) if "judged by 64 of 258 generations" in c["claim"]}
    assert {held[claim] for claim in held if "R = 0.16" in claim} == {"undecided"}
    assert {held[claim] for claim in held if "beats" in claim and "R = 22" in claim} == {"yes"}
    assert {held[claim] for claim in held if "loses" in claim} == {"no"}


def test_wide_intervals_decide_nothing():
    assert {claim["held"] for claim in claims.summarise(vague(paper()))} == {"undecided"}


def test_what_a_run_does_not_have_is_left_out():
    full = paper()
    assert claims.summarise({"comparisons": []}) == []
    everything = claims.summarise(full)
    for key in full:
        if key == "comparisons":
            continue
        part = copy.deepcopy(full)
        del part[key]
        found = claims.summarise(part)
        assert 0 < len(found) < len(everything), key
        texts = [claim["claim"] for claim in found]
        assert texts == [claim["claim"] for claim in everything if claim["claim"] in texts], "order or words changed"
    # Estimates that do not exist are null.
    full["revision"]["right_to_wrong"] = dict.fromkeys(("mean", "low", "high"))
    full["revision"]["late_steps"] = None
    full["over_optimisation"]["growth"]["beam:width=4"]["gap"] = dict.fromkeys(("mean", "low", "high"))
    assert len(claims.summarise(full)) == len(everything) - 4


def test_rest_em_is_judged_where_it_was_trained():
    full = paper()
    full["revision"]["rest_em"] = True
    (claim,) = (claim for claim in claims.summarise(full) if "ReST" in claim["claim"])
    assert (claim["held"], claim["source"]) == ("no", "Fig. 16"), "one chain is better here, the paper says worse"


def test_the_saving_is_taken_where_it_could_be_seen():
    """At 64 of 64 generations nothing can be saved; at 16 a baseline that never gets there has 4 times or more."""
    full = paper()
    saved = {
        "16": {"times": 4.0, "low": 4.0, "high": 4.0, "reached": False},
        "64": {"times": 1.0, "low": 1.0, "high": 1.0, "reached": False},
    }
    full["compute_optimal"]["oracle"] = {"minus_best": by_budget(0.02), "compute_saved": saved}
    (claim,) = (c for c in claims.summarise(full) if c["measure"] == "compute_optimal.oracle.compute_saved")
    assert (claim["seen"], claim["held"], claim["unit"]) == (4.0, "yes", "times")
    assert "(N = 16, where most; it does not get there by 64)" in claim["claim"]
    full["compute_optimal"]["oracle"]["compute_saved"] = {"64": saved["64"]}
    assert not [c for c in claims.summarise(full) if c["measure"] == "compute_optimal.oracle.compute_saved"]


@given(NUMBERS, NUMBERS, NUMBERS)
def test_decisions_follow_the_interval(a, b, limit):
    low, high = min(a, b), max(a, b)
    opposite = {"yes": "no", "no": "yes", "undecided": "undecided"}
    assert claims.above(low, high, limit) == opposite[claims.below(low, high, limit)]
    if low <= limit <= high:
        assert claims.above(low, high, limit) == "undecided"
    near = claims.near(low, high, limit, 0.1)
    if near == "yes":
        assert max(abs(low - limit), abs(high - limit)) <= 0.1 + 1e-9
    elif near == "no":
        assert min(abs(low - limit), abs(high - limit)) > 0.1 - 1e-9
        assert not low <= limit <= high


def test_a_difference_of_nothing_decides_nothing():
    assert claims.above(0.0, 0.0) == claims.below(0.0, 0.0) == "undecided"


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
    assert claims.seen({"seen": 2.4, "low": -1.0, "high": 3.0, "unit": unit, "measure": measure}) == text


def test_what_is_not_the_papers_is_not_judged():
    """Right answers that turn wrong hang on what was in view in training; PRM against ORM on equal training."""
    summary = paper()
    summary["revision"]["other_recipe"] = "here right answers are in view"
    summary["orm"]["incomparable"] = "the ORM was trained less"
    found, before = claims.summarise(summary), claims.summarise(paper())
    changed = {new["claim"]: (new, old) for new, old in zip(found, before, strict=True) if new != old}
    assert {new["measure"] for new, _ in changed.values()} == {
        *("revision.right_to_wrong", "orm.prm_minus_orm", "orm.gap_growth")
    }
    for text, (new, old) in changed.items():
        reason = "here right answers are in view" if "revision" in new["measure"] else "the ORM was trained less"
        assert text == f"{old['claim']}; {reason}"
        assert new == old | {"claim": text, "held": "not applicable"}, "what was seen is still shown"
    assert claims.tally(found) == {"yes": len(found) - 3, "no": 0, "undecided": 0, "not applicable": 3}
    console = Console(file=io.StringIO(), width=80)
    claims.render(found, console)
    assert console.file.getvalue().count("applicable") == 3  # type: ignore[attr-defined]


def test_verifiers_of_revisions_are_compared_whichever_selects():
    """The same difference, written the other way round where the PRM selects."""
    summary = paper()
    row = next(r for r in summary["revision"]["verifier_differences"] if (r["b"], r["n"]) == ("prm", 64))
    row |= {"a": "prm", "b": "history", "mean": -0.02, "low": -0.04, "high": -0.01}
    [claim] = [c for c in claims.summarise(summary) if "beats the PRM of base samples" in c["claim"]]
    assert "one chain of 64" in claim["claim"]
    assert (claim["seen"], claim["low"], claim["high"]) == pytest.approx((2.0, 1.0, 4.0))
    assert claim["held"] == "yes"


def test_claims_are_printed_and_written():
    found = claims.summarise(paper())
    assert claims.tally(found) == {"yes": len(found), "no": 0, "undecided": 0, "not applicable": 0}
    assert len(claims.csv_rows(found)) == len(found)
    console = Console(file=io.StringIO(), width=80)
    claims.render(found, console)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 80
    assert text.count("yes") == len(found)
