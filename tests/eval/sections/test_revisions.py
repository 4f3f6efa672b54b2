"""What chains say of every split of a budget, against direct runs and by hand."""

import dataclasses

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from ttcjax.config import (
    Aggregation,
    ChainsConfig,
    DraftsConfig,
    ExperimentConfig,
    ReSTConfig,
    RevisionConfig,
    SweepConfig,
    TrajectoryConfig,
)
from ttcjax.eval.collect import revision_chains
from ttcjax.eval.records import answer_chains, verifier_scores
from ttcjax.eval.records.answer_chains import SELECTORS, AnswerChains, pairs
from ttcjax.eval.records.bundle import settings_of
from ttcjax.eval.report.coding import encode
from ttcjax.eval.report.section import Summary
from ttcjax.eval.sections.revising import revision_figures, revision_numbers, revision_tables, revisions
from ttcjax.eval.stats.difficulty import quantile_bins
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.runtime.errors import UserError
from ttcjax.verify.select import choose, choose_in_chains


def markov_chains(rng, questions, lengths):
    """Chains of a script: an answer is right after a right one more often than after a wrong one, scores lean on it."""
    rows = []
    for q in range(questions):
        ease = (q + 1) / (questions + 1)
        for c, length in enumerate(lengths):
            right = rng.random() < ease
            for place in range(length):
                if place:
                    right = rng.random() < (0.7 if right else 0.5 * ease)
                answer = "gold" if right else f"wrong{rng.integers(3)}"
                answer = None if rng.random() < 0.05 else answer
                score = float(np.clip(0.25 * right + 0.75 * rng.random(), 0, 1))
                rows.append(row(f"q{q:03d}", c, place, answer, bool(right and answer is not None), score))
    return pa.Table.from_pylist(rows, schema=revision_chains.SCHEMA)


def row(question, chain, place, answer, correct, score, strategy="revise", kept=None):
    return {
        "question": question,
        "level": 1,
        "gold": "gold",
        "strategy": strategy,
        "chain": chain,
        "place": place,
        "seed": 0,
        "text": "",
        "answer": answer,
        "correct": correct,
        "finished": True,
        "shown": min(place, 4),
        "kept": kept,
        "scores": verifier_scores.nested({"history": [score], "prm": [score / 2]}),
        "tokens": 1,
        "verifier_tokens": 1,
        "logprob": 0.0,
        "seconds": 0.0,
    }


def test_every_split_can_be_cut_from_the_chains():
    for budgets, answers, count in (
        ((1, 2, 4, 8, 16, 32, 64), 16, 4),
        ((1, 4, 16), 3, 2),
        ((8,), 64, 1),
        (tuple(2**i for i in range(9)), 64, 4),
    ):
        lengths = np.array(ChainsConfig(budgets=budgets, answers=answers, chains=count).lengths)
        assert (np.diff(lengths) <= 0).all()
        assert (lengths >= answers).sum() >= count
        for n in budgets:
            for s, p in pairs(n):
                assert s * p == n
                assert (lengths >= s).sum() >= p, f"no {p} chains of {s}"
    # Nothing more than that is sampled.
    assert sum(ChainsConfig(budgets=(16,), answers=1, chains=1).lengths) == 16 + 8 + 4 * 2 + 2 * 4 + 1 * 8


@pytest.mark.parametrize("rule", ["hierarchical", "majority"])
def test_splits_cut_from_long_chains_are_unbiased(rule):
    """Against chains run with just that split: equal means, z-tests at a false-alarm rate of 1e-4 each."""
    rng = np.random.default_rng(7)
    lengths, runs = ChainsConfig(budgets=(1, 2, 4, 8), answers=8, chains=2).lengths, 150
    cut = [AnswerChains.from_table(markov_chains(rng, 4, lengths), lengths) for _ in range(runs)]
    for s, p in [(1, 4), (2, 2), (2, 4), (8, 1)]:
        direct = [AnswerChains.from_table(markov_chains(rng, 4, [s] * p), [s] * p) for _ in range(runs)]
        a, b = (np.stack([found.accuracy(s, p, rule, "history") for found in side]) for side in (cut, direct))
        spread = np.sqrt((a.var(axis=0, ddof=1) + b.var(axis=0, ddof=1)) / runs)
        z = (a.mean(axis=0) - b.mean(axis=0)) / np.maximum(spread, 1e-9)
        assert (2 * stats.norm.sf(np.abs(z)) > 1e-4).all(), f"s={s}, p={p}: {z}"


def by_hand(answers, scores):
    """Chains of question q: answers[c][place]; `g` is right."""
    rows = [
        row("q", c, place, answer, answer == "g", score)
        for c, (chain, marks) in enumerate(zip(answers, scores, strict=True))
        for place, (answer, score) in enumerate(zip(chain, marks, strict=True))
    ]
    return AnswerChains.from_table(pa.Table.from_pylist(rows, schema=revision_chains.SCHEMA), [len(c) for c in answers])


def test_selectors_by_hand():
    found = by_hand([["g", "a", "a"], ["g", "b", "b"]], [[0.9, 0.4, 0.4], [0.5, 0.6, 0.1]])
    # Within the chains g (0.9 against 0.8) and b (0.7 against 0.5) win; among the winners g, with 0.9 against 0.6.
    assert found.accuracy(3, 2, "hierarchical", "history") == [1.0]
    assert found.accuracy(3, 2, "majority") == [1.0], "two each: the first of equals, g, wins"
    worse = by_hand([["g", "a", "a"], ["g", "b", "b"]], [[0.1, 0.4, 0.4], [0.1, 0.6, 0.6]])
    assert worse.accuracy(3, 2, "majority", "history") == [1.0], "a vote asks no verifier"
    assert worse.accuracy(3, 2, "last", "history") == [0.0], "a, the first"
    assert found.accuracy(3, 2, "last", "history") == [0.0]
    assert found.accuracy(3, 1, "best", "history") == [0.5], "g in the first chain, b in the second"
    assert found.accuracy(1, 1, "majority") == [1.0]
    assert found.pass_at_1(0) == [1.0]
    assert found.pass_at_1(1) == [0.0]
    assert found.turns(0).tolist() == [[[0, 0], [2, 0]]]


@settings(deadline=None, max_examples=80)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_hierarchical_with_one_chain_is_best_of_n_weighted_within_it(seed, length):
    rng = np.random.default_rng(seed)
    groups, scores = rng.integers(-1, 3, (6, length)), rng.random((6, length))
    within = choose(groups, scores, "weighted")
    np.testing.assert_array_equal(choose_in_chains(groups[:, None], scores[:, None], "hierarchical"), within)
    # And chains of one answer are samples.
    np.testing.assert_array_equal(choose_in_chains(groups[..., None], scores[..., None], "hierarchical"), within)


def test_a_chain_alone_is_chosen_from_as_by_weighted_votes():
    found = by_hand([["g", "a", "g", "a"]], [[0.3, 0.5, 0.3, 0.05]])
    assert found.accuracy(4, 1, "hierarchical", "history") == [1.0]
    assert found.accuracy(2, 1, "hierarchical", "history") == [0.0]


def test_equal_scores_vote_like_majority():
    table = markov_chains(np.random.default_rng(0), 30, [4, 4, 4])
    found = AnswerChains.from_table(table, [4, 4, 4])
    level = dataclasses.replace(found, scores={"history": np.where(found.groups >= 0, 0.5, 0.0)})
    np.testing.assert_array_equal(level.accuracy(4, 1, "hierarchical", "history"), level.accuracy(4, 1, "majority"))
    np.testing.assert_array_equal(level.accuracy(1, 3, "hierarchical", "history"), level.accuracy(1, 3, "majority"))


def test_what_stands_is_the_last_kept():
    rows = [
        row("q", 0, place, answer, answer == "g", 0.5, "refine", kept)
        for place, (answer, kept) in enumerate([("a", True), ("g", False), ("g", True), ("b", False)])
    ]
    found = AnswerChains.from_table(pa.Table.from_pylist(rows, schema=revision_chains.SCHEMA), [4])
    assert [found.standing(place).tolist() for place in range(4)] == [[0.0], [0.0], [1.0], [1.0]]


@pytest.mark.parametrize("change", ["missing", "twice", "too long"])
def test_rows_that_do_not_fit_are_said_so(change):
    table = markov_chains(np.random.default_rng(0), 3, [2, 1])
    table = {
        "missing": table.slice(1),
        "twice": pa.concat_tables([table, table.slice(0, 1)]),
        "too long": markov_chains(np.random.default_rng(0), 3, [3, 1]),
    }[change]
    with pytest.raises(UserError, match="move their folder away"):
        AnswerChains.from_table(table, [2, 1])


def test_scores_of_answers_are_read_by_the_name_of_their_verifier():
    """By loops; step scores are put together as each verifier's are, to the rows' precision."""
    rng = np.random.default_rng(4)
    how: dict[str, Aggregation] = {"prm": "product", "history": "last"}
    rows = [row(f"q{i}", 0, 0, "g", True, 0.5) for i in range(40)]
    for one in rows:
        names = rng.permutation(["prm", "history", "a_mean_one"])[: rng.integers(4)]
        one["scores"] = verifier_scores.nested({name: rng.random(rng.integers(4)).tolist() for name in names.tolist()})
    table = pa.Table.from_pylist(rows, schema=revision_chains.SCHEMA)
    found = verifier_scores.of_answers(pa.concat_tables([table.slice(7), table.slice(0, 7)]), how)
    assert list(found) == ["prm", "history", "a_mean_one"], "those that are named first, in their order"
    for place, one in enumerate(rows[7:] + rows[:7]):
        told = {judged["verifier"]: np.asarray(judged["step_scores"], np.float32) for judged in one["scores"]}
        for name, values in found.items():
            steps = told.get(name)
            expected = np.nan if steps is None else 0.0 if not len(steps) else steps[-1]
            if steps is not None and name == "prm" and len(steps):
                expected = np.float32(np.prod(steps.astype(np.float64)))
            assert values[place] == expected or (np.isnan(values[place]) and np.isnan(expected))


def test_bins_are_of_a_size_and_in_order():
    ease = np.random.default_rng(0).random(23)
    bins = quantile_bins(ease)
    assert sorted(np.bincount(bins)[1:].tolist()) == [4, 4, 5, 5, 5]
    for number in range(1, 5):
        assert ease[bins == number].min() > ease[bins == number + 1].max()
    with pytest.raises(UserError, match="bins"):
        quantile_bins(ease[:3])


def test_the_summary_agrees_with_the_chains_and_is_drawn(capsys):
    config = ExperimentConfig(
        revision=RevisionConfig(enabled=True),
        chains=ChainsConfig(budgets=(1, 2, 4, 8), answers=6, chains=2, refine=2),
        sweep=SweepConfig(bootstrap=200),
    )
    table = markov_chains(np.random.default_rng(3), 20, config.chains.lengths)
    tries = [row(f"q{q:03d}", 0, t, "gold", True, 0.5, "refine", t == 0) for q in range(20) for t in range(3)]
    table = pa.concat_tables([table, pa.Table.from_pylist(tries, schema=revision_chains.SCHEMA)])
    ease = {f"q{q:03d}": q / 20 for q in range(20)}
    splits = answer_chains.splits(config.chains, table, ease, "history")
    compared = revision_numbers.compare(settings_of(config), splits, ease)
    revision = encode(compared, places=15)
    accuracy = revision["accuracy"]
    by_ratio = splits.by_ratio("majority")
    assert [list(cells) for cells in by_ratio.values()] == [
        [f"revise:s={s},p={p}" for s, p in pairs(n)] for n in (1, 2, 4, 8)
    ]
    assert [step["step"] for step in revision["pass_at_1_by_step"]] == list(range(1, 9))
    assert {name for name in accuracy if name.startswith("revise")} == {
        f"revise:s={s},p={p}" for n in (1, 2, 4, 8) for s, p in pairs(n)
    }
    assert accuracy["revise:s=1,p=1"]["majority"]["mean"] == pytest.approx(
        np.mean([r["correct"] for r in table.to_pylist() if r["place"] == 0 and r["strategy"] == "revise"])
    )
    assert accuracy["refine:steps=2"]["accepted"]["mean"] == 1.0
    assert 0.25 < revision["right_to_wrong"]["mean"] < 0.45, "0.3 and unparsable ones by the script"
    assert {cells["questions"] for cells in revision["per_bin"].values()} == {4}
    for difference in revision["sequential_minus_parallel"]:
        n, rule = difference["n"], difference["selector"]
        one, other = (accuracy[f"revise:s={s},p={n // s}"][rule]["mean"] for s in (n, 1))
        assert difference["mean"] == pytest.approx(one - other)
        assert difference["low"] <= difference["mean"] <= difference["high"]
    made = {"distance": {"0": 1, "1": 2, "3": 4}, "context": [1, 2, 3], "trajectories": 7, "questions": 5, "kept": 1}
    compared = dataclasses.replace(compared, trajectories=revisions.trajectories_of(made))
    drawings = {drawing.entry.name: drawing for drawing in revisions.SECTION.drawings}
    for name, drawing in drawings.items():
        figure = drawing.draw(compared, Summary("", "", 20, 0))
        assert figure is not None, name
        figure.canvas.draw()
        legends = [legend for part in (figure, *figure.subfigs) for legend in part.legends]
        assert bool(legends) == (name != "revision_trajectories")
        for legend in legends:
            box = legend.get_window_extent()
            assert not any(box.overlaps(axes.get_window_extent()) for axes in figure.axes), f"{name}: a legend on lines"
            assert 0 <= box.x0 < box.x1 <= figure.bbox.width, f"{name}: a legend is cut off"
    verifiers = revision_figures.verifiers(compared).axes[0]
    assert len(verifiers.lines) == len(revision["verifiers"]) + 1, "every verifier of one chain, and parallel answers"
    assert len(revision_tables.bin_rows(compared)) == 2 * 5 * 2 * len(pairs(8))
    assert len(revision_tables.verifier_rows(compared)) == 2 * 4
    from rich.console import Console

    selection = revision_numbers.Selection(9, {"history": 0.5, "prm": 0.625}, "prm")
    revision_tables.render(dataclasses.replace(compared, selection=selection), Console(width=120))
    printed = capsys.readouterr().out
    assert "turn wrong at the next step" in printed
    assert "right in: history 50.0%, prm 62.5%; here history selects, as chains.verifier says" in printed
    with pytest.raises(UserError, match="no samples"):
        answer_chains.splits(config.chains, table, {}, "history")
    with pytest.raises(UserError, match="the chains hold 20 of 21 test questions"):
        answer_chains.splits(config.chains, table, ease | {"a question whose shard was lost": 0.5}, "history")


def test_what_claims_rest_on_agrees_with_the_chains():
    config = ExperimentConfig(
        revision=RevisionConfig(enabled=True),
        chains=ChainsConfig(budgets=(1, 2, 4, 8), answers=8, chains=2),
        sweep=SweepConfig(bootstrap=200),
    )
    table = markov_chains(np.random.default_rng(3), 20, config.chains.lengths)
    ease = {f"q{q:03d}": q / 20 for q in range(20)}
    contrary = {name: -value for name, value in ease.items()}
    splits = answer_chains.splits(config.chains, table, ease, "history")
    revision = encode(revision_numbers.compare(settings_of(config), splits, ease, contrary), places=15)
    steps = {step["step"]: step["mean"] for step in revision["pass_at_1_by_step"]}
    late = revision["late_steps"]
    assert (late["from"], late["to"], late["trained"]) == (6, 8, 5)
    mean = np.mean([steps[step] for step in (6, 7, 8)])
    assert late["minus_first"]["mean"] == pytest.approx(mean - steps[1])
    assert late["minus_trained"]["mean"] == pytest.approx(mean - steps[5])
    # Predicted bins in the contrary order are the same bins from the other end.
    for number in range(1, 6):
        for rule in SELECTORS:
            one, other = revision["per_bin"][str(number)], revision["per_bin_predicted"][str(6 - number)]
            assert one[rule]["accuracy"] == other[rule]["accuracy"]
    easy = revision["by_ease"]["hierarchical"]["easy"]["sequential_minus_parallel"]
    cells = [revision["per_bin"][number]["hierarchical"]["accuracy"] for number in ("1", "2")]
    expected = np.mean([c["revise:s=8,p=1"]["mean"] - c["revise:s=1,p=8"]["mean"] for c in cells])
    assert easy["mean"] == pytest.approx(expected)
    hard = revision["by_ease"]["majority"]["hard"]
    cells = [revision["per_bin"][number]["majority"]["accuracy"] for number in ("3", "4", "5")]
    one, many = (np.mean([c[f"revise:s={s},p={8 // s}"]["mean"] for c in cells]) for s in (8, 1))
    between = hard["between_minus_parallel"]["mean"] + many
    assert between == pytest.approx(hard["between_minus_sequential"]["mean"] + one), "one choice, against both ends"
    splits = [[c[f"revise:s={s},p={8 // s}"]["mean"] for s in (2, 4)] for c in cells]
    assert np.mean(np.min(splits, axis=1)) - 1e-9 <= between <= np.mean(np.max(splits, axis=1)) + 1e-9
    config = dataclasses.replace(config, chains=ChainsConfig(budgets=(1, 2), answers=2, chains=2))
    table = markov_chains(np.random.default_rng(3), 20, config.chains.lengths)
    splits = answer_chains.splits(config.chains, table, ease, "history")
    short = revision_numbers.compare(settings_of(config), splits, ease)
    assert short.late_steps is None
    assert short.by_ease.majority.hard is None, "two answers have no split in between"


@pytest.mark.parametrize(
    ("revision", "papers"),
    [
        (RevisionConfig(), True),
        (RevisionConfig(restate=True), True),
        (RevisionConfig(trajectories=TrajectoryConfig(context="any")), False),
        (RevisionConfig(trajectories=TrajectoryConfig(most=2)), False),
        (RevisionConfig(trajectories=TrajectoryConfig(kept=0.3)), False),
        (RevisionConfig(rest_em=ReSTConfig(chains=4)), False),
    ],
)
def test_a_recipe_is_the_papers_or_says_what_it_is(revision, papers):
    assert (revision_numbers.other_recipe(revision, DraftsConfig()) is None) is papers
    drafts = DraftsConfig(several=0.6, kept=0.4, restate=revision.restate)
    assert revision_numbers.other_recipe(revision, drafts) is not None


def test_examples_are_chains_that_turn():
    lengths = [4, 2]
    table = markov_chains(np.random.default_rng(1), 99, lengths)
    texts = [f"{r['question']}/{r['chain']}/{r['place']}" for r in table.to_pylist()]
    table = table.set_column(table.schema.get_field_index("text"), "text", pa.array(texts))
    shuffled = table.take(np.random.default_rng(0).permutation(table.num_rows))
    found = encode(revision_tables.examples(shuffled, "history", {}), places=15)
    right = {(r["question"], r["place"]): r["correct"] for r in table.to_pylist() if r["chain"] == 0}
    turns = [[answer["correct"] for answer in example["answers"][:2]] for example in found]
    assert turns == [[False, True], [False, True], [True, False]]
    for example in found:
        q = example["question"]
        assert [answer["text"] for answer in example["answers"]] == [f"{q}/0/{place}" for place in range(3)]
        assert [answer["correct"] for answer in example["answers"]] == [right[q, place] for place in range(3)]
        assert all(0 <= answer["score"] <= 1 for answer in example["answers"])
    first = min(q for q, place in right if not right[q, 0] and right[q, 1])
    assert found[0]["question"] == first


def test_the_verifier_given_selects_and_all_are_compared():
    """Whichever selects, by chains.verifier or on validation: the numbers of each are the same."""
    config = ExperimentConfig(
        revision=RevisionConfig(enabled=True),
        chains=ChainsConfig(budgets=(1, 2, 8), answers=8, chains=2),
        sweep=SweepConfig(bootstrap=20),
    )
    table = markov_chains(np.random.default_rng(3), 20, config.chains.lengths)
    names, rng = ("history", "no_history", "prm", "of_mine"), np.random.default_rng(0)
    rows = table.to_pylist()
    for row in rows:
        [own, *_] = row["scores"]
        row["scores"] = [*verifier_scores.nested({name: rng.random(2).tolist() for name in names[1:]}), own]
    table = pa.Table.from_pylist(rows, schema=table.schema)
    ease = {f"q{q:03d}": q / 20 for q in range(20)}
    found, differences = {}, {}
    for name in names:
        splits = answer_chains.splits(config.chains, table, ease, name)
        revision = encode(revision_numbers.compare(settings_of(config), splits, ease), places=15)
        accuracy = revision["accuracy"]
        assert revision["verifier"] == name
        assert set(revision["verifiers"]) == set(names)
        assert accuracy["revise:s=8,p=1"]["hierarchical"] == revision["verifiers"][name]["8"]
        found[name] = accuracy["revise:s=8,p=1"]["hierarchical"]["mean"]
        rows = revision["verifier_differences"]
        differences[name] = {frozenset((r["a"], r["b"])): (r["a"], r["mean"]) for r in rows if r["n"] == 8}
        assert len(differences[name]) == 6, "every two are compared once"
    assert len(set(found.values())) == 4
    for of_one in differences.values():
        for pair, (a, mean) in of_one.items():
            [b] = pair - {a}
            assert mean == pytest.approx(found[a] - found[b])


def test_a_split_is_judged_on_questions_that_did_not_choose_it():
    """Splits that differ by chance alone gain nothing; false-alarm rate 1e-4."""
    rng = np.random.default_rng(5)
    config = ExperimentConfig(sweep=SweepConfig(bootstrap=20))
    gains, flattered = [], []
    for _ in range(200):
        values = {pair: (rng.random(40) < 0.5).astype(float) for pair in pairs(16)}
        best = revision_numbers._best(settings_of(config), Bootstrap(40, 20, 0), values)
        assert best.s is not None
        assert best.p is not None
        gains.append(best.mean)
        flattered.append(values[best.s, best.p].mean())
    error = np.std(gains) / np.sqrt(len(gains))
    assert abs(np.mean(gains) - 0.5) < 3.9 * error
    assert np.mean(flattered) - 0.5 > 10 * error, "the test could not see a choice judged on itself"
