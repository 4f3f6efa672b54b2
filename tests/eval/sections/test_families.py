"""Revisions by subject: the numbers against counting by hand, and what independent answers must give."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from ttcjax.config import ChainsConfig, ExperimentConfig, RevisionConfig, SweepConfig
from ttcjax.eval.collect import revision_chains as chains
from ttcjax.eval.records import answer_chains
from ttcjax.eval.records.bundle import settings_of
from ttcjax.eval.report.coding import encode
from ttcjax.eval.sections import luck, subjects
from ttcjax.eval.sections.revising import families

SUBJECTS = ("informs", "flat")
LENGTH, SWAP = 6, 4
MADE = ChainsConfig(budgets=(1, 2, 4), answers=LENGTH, chains=3, swap=SWAP)
CHAINS = len(MADE.lengths)


def config(questions):
    settings = dataclasses.replace(MADE, questions=questions)
    return ExperimentConfig(chains=settings, revision=RevisionConfig(enabled=True), sweep=SweepConfig(bootstrap=200))


def rows(right_QCS, lengths, swap_QS):
    """Rows of the chains stage for given right and wrong answers."""
    empty = {field.name: None if field.nullable else 0 for field in chains.SCHEMA}
    empty |= {"gold": "1", "text": "", "finished": True, "shown": 0, "scores": []}
    found = []
    for q in range(len(right_QCS)):
        for c, length in enumerate(lengths):
            for s in range(length):
                found.append(
                    {"strategy": "revise", "chain": c, "place": s, "correct": bool(right_QCS[q, c, s])} | {"q": q}
                )
        for s in range(len(swap_QS[q])):
            found.append({"strategy": "swap", "chain": 0, "place": s, "correct": bool(swap_QS[q, s])} | {"q": q})
    table = [
        {**empty, **{k: v for k, v in row.items() if k != "q"}, "question": f"q{row['q']:03d}", "answer": "1"}
        for row in found
    ]
    return pa.Table.from_pylist(table, schema=chains.SCHEMA)


def subject_of(questions):
    return {f"q{q:03d}": SUBJECTS[q % 2] for q in range(questions)}


def splits_of(table, made=MADE):
    """The chains of a table; what splits of budgets are right in, these tests do not look at."""
    chains = answer_chains.AnswerChains.from_table(table.filter(pc.field("strategy") == "revise"), made.lengths)
    every = [pair for n in made.budgets for pair in answer_chains.pairs(n)]
    nothing = np.zeros(len(chains.questions))
    return answer_chains.Splits(
        chains, None, {(s, p, rule): nothing for s, p in every for rule in answer_chains.SELECTORS}, "prm"
    )


def summary(right, swap):
    made = config(len(right))
    table = rows(right, MADE.lengths, swap)
    informs = {"informs": True, "flat": False}.get
    found = families.compare(settings_of(made), splits_of(table), table, subject_of(len(right)), informs)
    return encode(found.subjects, places=15)


def test_numbers_are_those_of_counting():
    rng = np.random.default_rng(0)
    right, swap = rng.random((40, CHAINS, LENGTH)) < 0.4, rng.random((40, SWAP)) < 0.5
    found = summary(right, swap)
    assert list(found) == sorted(SUBJECTS)
    for place, subject in enumerate(SUBJECTS):
        own, of = right[place::2], found[subject]
        assert of["questions"] == 20
        assert of["attempts_inform"] is (subject == "informs")
        known = np.asarray(MADE.lengths)
        for s, row in enumerate(of["pass_at_1_by_step"]):
            assert row["mean"] == pytest.approx(own[:, known > s, s].mean())
        assert [row["mean"] for row in of["swap_by_step"]] == pytest.approx(swap[place::2].mean(axis=0))
        counts = {(ok, what): [0, 0] for ok in (0, 1) for what in ("own", "other")}
        for q in own:
            for s in range(LENGTH - 1):
                among = [c for c in range(len(known)) if known[c] > s + 1]
                if len(among) < 2:
                    continue
                for i, c in enumerate(among):
                    for what, follows in (("own", q[c, s + 1]), ("other", q[among[i - 1], 0])):
                        counts[int(q[c, s]), what][0] += follows
                        counts[int(q[c, s]), what][1] += 1
        for ok, name in enumerate(("wrong", "right")):
            for what in ("own", "other"):
                events, cases = counts[ok, what]
                assert of["after"][name][what]["mean"] == pytest.approx(events / cases), (subject, name, what)
        before, after = (own[:, [c for c in range(CHAINS) if known[c] > 1], s] for s in (0, 1))
        assert of["after_first"]["wrong"]["own"]["mean"] == pytest.approx(after[~before].mean())
        at = min(SWAP, LENGTH) - 1
        gained = own[:, known > at, at].mean() - own[:, :, 0].mean()
        control = swap[place::2, at].mean() - swap[place::2, 0].mean()
        assert of["beyond_swap"]["step"] == at + 1
        assert of["beyond_swap"]["mean"] == pytest.approx(gained - control)


def test_answers_that_inform_are_told_from_those_that_do_not():
    """Of one subject, an answer after a wrong one is right more often and after a right one always; of the other, never
    mind what came before. Each interval leaves out the truth in one of twenty."""
    rng = np.random.default_rng(1)
    right = rng.random((400, CHAINS, LENGTH)) < 0.3
    for s in range(1, LENGTH):
        right[::2, :, s] |= right[::2, :, s - 1]
    swap = rng.random((400, SWAP)) < 0.3
    found = summary(right, swap)
    informs, flat = found["informs"], found["flat"]
    assert informs["gain"]["low"] > 0.4
    assert informs["swap_gain"]["low"] < 0 < informs["swap_gain"]["high"]
    assert flat["gain"]["low"] < 0 < flat["gain"]["high"]
    assert informs["after"]["right"]["own"]["mean"] == 1
    for what in ("right", "wrong"):
        own, other = (flat["after"][what][name] for name in ("own", "other"))
        assert own["low"] < other["high"], "independent answers"
        assert other["low"] < own["high"], "independent answers"


def test_without_the_control_and_with_one_chain_there_is_less_to_say():
    alone = dataclasses.replace(MADE, budgets=(1,), chains=1, swap=0)
    assert alone.lengths == (LENGTH,)
    right = np.random.default_rng(2).random((10, 1, LENGTH)) < 0.5
    table = rows(right, alone.lengths, np.zeros((10, 0)))
    made = dataclasses.replace(config(10), chains=dataclasses.replace(alone, questions=10))
    compared = families.compare(settings_of(made), splits_of(table, alone), table, subject_of(10), lambda subject: None)
    found = encode(compared.subjects)
    for subject in SUBJECTS:
        assert not {"swap_by_step", "swap_gain", "beyond_swap"} & set(found[subject])
        assert found[subject]["after"]["right"]["other"]["mean"] is None, "there is no other chain to compare with"
        assert found[subject]["attempts_inform"] is None
    assert not [row for row in families.csv_rows(compared) if row[1].startswith("swap")]
    [_, lines] = [axes.get_lines() for axes in families.figure(compared).axes]
    assert len(lines) == 2, "its own answers, and where training ends"


@pytest.mark.parametrize("known", [True, False])
def test_luck_is_the_share_of_right_samples_with_a_false_step(known):
    table = pa.table(
        {
            "question": ["a", "a", "a", "b", "b"],
            "subject": ["x", "x", "x", "y", "y"],
            "correct": [True, True, False, True, True],
            "step_truth": pa.array(
                [[True, False], [True, True], [False, True], [True], [True]] if known else [None] * 5,
                pa.list_(pa.bool_()),
            ),
        }
    )
    found = luck.false_steps(config(10).sweep, table)
    assert {name: cell.mean for name, cell in found.items()} == ({"all": 0.25, "x": 0.5, "y": 0} if known else {})


def test_searches_by_subject_are_means_over_their_questions():
    rng = np.random.default_rng(3)
    names = ("majority", "best_of_n:select=weighted", "beam:width=4")
    made = config(40)
    budgets = made.sweep.budgets
    accuracy = {name: {n: rng.random(40) for n in budgets} for name in names}
    greedy = rng.random(40) < 0.5
    compared = subjects.compare(made.sweep, list(subject_of(40).values()), greedy, accuracy)
    found = encode(compared.subjects, places=15)
    for place, subject in enumerate(SUBJECTS):
        cells = found[subject]
        assert cells["greedy"]["mean"] == pytest.approx(greedy[place::2].mean())
        for name in names:
            for n in budgets:
                assert cells["accuracy"][name][str(n)]["mean"] == pytest.approx(accuracy[name][n][place::2].mean())
        assert list(cells["beyond_weighted"]) == ["beam:width=4"]
        for n in budgets[1:]:
            less = (accuracy["beam:width=4"][n] - accuracy[names[1]][n])[place::2].mean()
            assert cells["beyond_weighted"]["beam:width=4"][str(n)]["mean"] == pytest.approx(less)
    rows = subjects.csv_rows(compared)
    assert len(rows) == 2 * (1 + len(budgets) * 3 + len(budgets) - 1)
