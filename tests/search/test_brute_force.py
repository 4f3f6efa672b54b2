"""Every search against the paper's text told with lists, on a scripted engine with no network."""

import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ttcjax.search.strategies.beam import Beam, select_parents, sqrt_width
from ttcjax.search.strategies.dvts import DVTS
from ttcjax.search.strategies.lookahead import Lookahead
from ttcjax.testing import ScriptedOps
from ttcjax.testing.scripted import by_number, mix
from ttcjax.verify import select

EACH = (Beam(8, 4), Lookahead(8, 4, k=2), DVTS(8, 4))
COMPETING = tuple(dataclasses.replace(strategy, ended="compete") for strategy in EACH)


def run(ops, strategy):
    """Search with 3 questions under way at once, so that places go on with others."""
    held = dataclasses.replace(ops, questions=min(3, ops.questions))
    found = jax.jit(lambda: held.search(strategy, ops.questions))()
    return found.rows, found.step_scores


def honest_at_the_end(path, done):
    """A verifier that is right of ended paths and upside down before."""
    return jnp.where(done, by_number(path, done), 1.0 - by_number(path, done))


def brute_force(ops, strategy, score):
    """Search question by question; return final rows, and the steps drawn and rolled out at each place."""
    n, k = strategy.n, getattr(strategy, "k", 0)
    width = strategy.width if strategy.width != "sqrt" else max(m for m in range(1, n + 1) if n % m == 0 and m * m <= n)
    tree = width if isinstance(strategy, DVTS) else n
    finals, drawn, ahead = [], [0] * (ops.questions * n), [0] * (ops.questions * n)
    for q in range(ops.questions):
        rows: list[tuple[int, tuple[float, ...]]] = [(q + ops.first, ()) for _ in range(n)]  # path, scores of its steps
        done = [False] * n
        for search_round in range(strategy.max_rounds):
            worth = [score(path, True) for path, _ in rows]
            for i in (i for i in range(n) if not done[i]):
                path, scores = rows[i]
                path = mix(path, i % ops.children) if ops.children else mix(path, i, search_round)
                done[i] = over = ops.ends(path, len(scores) + 1)
                rows[i] = (path, (*scores, score(path, over)))
                drawn[q * n + i] += 1
                for further in range(1, k + 1):
                    if not over:
                        path = mix(path, 0)
                        over = ops.ends(path, len(scores) + 1 + further)
                        ahead[q * n + i] += 1
                worth[i] = score(path, over)
            for first in range(0, n, tree):
                live = [i for i in range(first, first + tree) if not done[i]]
                dealt = live
                if strategy.ended == "compete" and live:
                    group = sorted(range(first, first + tree), key=lambda i: (-worth[i], i))
                    dealt = sorted({*live, *group[-(-tree // width) :]})
                best = sorted(live, key=lambda i: (-worth[i], i))[: -(-len(dealt) // width)]
                children = [rows[i] for i in best for _ in range(width)]
                children = (children + [rows[best[-1]]] * len(dealt))[: len(dealt)] if live else []
                for i, child in zip(dealt, children, strict=True):
                    rows[i], done[i] = child, False
        finals += rows
    return finals, drawn, ahead


def assert_equals_brute_force(ops, strategy, score):
    state, scored = run(ops, strategy)
    finals, drawn, ahead = brute_force(ops, strategy, score)
    assert state.path.tolist() == [path for path, _ in finals], "another row was kept or continued"
    assert state.drawn.tolist() == drawn, "steps were sampled for rows that had ended, or not for live ones"
    assert state.ahead.tolist() == ahead, "a rollout took another number of steps"
    np.testing.assert_array_equal(state.read, state.drawn + state.ahead, "the verifier read a step twice or never")
    expected = np.zeros((len(finals), ops.max_steps), np.float32)
    for row, (_, scores) in enumerate(finals):
        expected[row, : len(scores)] = scores
    np.testing.assert_array_equal(scored, expected, "scores did not follow their rows, or are those of rollouts")


@pytest.mark.parametrize(
    "strategy",
    [
        *(Beam(4, 4), Beam(4, 2), Beam(16, 4), Beam(8, 2), Beam(64, 8), Beam(7, 3), Beam(8, 4, max_rounds=2)),
        *(Lookahead(4, 2), Lookahead(16, 4, k=2), Lookahead(12, "sqrt", k=3), Lookahead(7, 3), Lookahead(8, 8, k=9)),
        *(Lookahead(8, 4, k=0), Lookahead(8, 4, k=3, max_rounds=2)),
        *(DVTS(4, 2), DVTS(8, 2), DVTS(16, 4), DVTS(12, "sqrt"), DVTS(4, 4), DVTS(8, 4, max_rounds=2)),
        *(*COMPETING, Beam(16, 4, ended="compete"), Beam(7, 3, ended="compete"), Beam(8, 2, 3, "compete")),
    ],
    ids=lambda strategy: f"{strategy.name},max_rounds={strategy.max_rounds}",
)
def test_a_search_is_brute_force(strategy):
    assert_equals_brute_force(
        ScriptedOps(questions=20, n=strategy.n), strategy, lambda path, _: ScriptedOps.score(path)
    )


@pytest.mark.parametrize(("least", "most"), [(1, 1), (1, 6), (4, 4)])
@pytest.mark.parametrize("strategy", [*EACH, *COMPETING, Lookahead(4, 4, k=3)], ids=lambda strategy: strategy.name)
def test_a_search_is_brute_force_on_trees_of_few_children(strategy, least, most):
    """Rows meet on the same paths, so places tie, and the verifier's mind changes when a path ends."""
    ops = ScriptedOps(20, strategy.n, min_steps=least, max_steps=most, children=3, verifier=honest_at_the_end)
    assert_equals_brute_force(
        ops, strategy, lambda path, over: ops.score(path) if over else float(1 - np.float32(ops.score(path)))
    )


@pytest.mark.parametrize("strategy", EACH, ids=lambda strategy: strategy.name)
def test_a_question_ends_alike_alone_and_among_others(strategy):
    def paths(ops):
        return run(ops, strategy)[0].path.reshape(-1, 8).tolist()

    together = paths(ScriptedOps(questions=4, n=8))
    assert len({path for row in together for path in row}) > 8
    for q, row in enumerate(together):
        assert paths(ScriptedOps(questions=1, n=8, first=q)) == [row], "a row continued another question's row"


@pytest.mark.parametrize("strategy", [*EACH, *COMPETING, Beam(8, 4, 2), Lookahead(8, 4, 3, 2), DVTS(8, 4, 2)])
def test_no_search_outspends_its_budget(strategy):
    ops = ScriptedOps(questions=20, n=8)
    state, _ = run(ops, strategy)
    assert state.path.shape == (20 * 8,), "a question has more or fewer rows than its budget"
    rounds = min(strategy.max_rounds, ops.max_steps)
    assert int(state.drawn.max()) <= rounds, "sampled after the last round, or after a row had ended"
    spent = (state.drawn + state.ahead).reshape(20, 8).sum(axis=1)
    assert int(spent.max()) <= strategy.cost() * rounds, "a generation has more steps than the longest solution"


@pytest.mark.parametrize("strategy", COMPETING[:2], ids=lambda strategy: strategy.name)
def test_an_ended_row_is_dropped_where_others_are_better(strategy):
    """A verifier that finds all that has ended worthless: 6 of 8 rows that end early give way while one goes on."""

    def in_favour_of_length(path, done):
        return jnp.where(done, 0.1 * by_number(path, done), 0.5)

    ops = ScriptedOps(questions=20, n=8, min_steps=1, max_steps=5, verifier=in_favour_of_length)
    stay, compete = (
        jnp.sort(run(ops, dataclasses.replace(strategy, ended=ended))[0].steps.reshape(20, 8), axis=1)
        for ended in ("stay", "compete")
    )
    assert compete[:, 2:].mean().item() > stay[:, 2:].mean().item() + 0.5


def test_the_best_ended_rows_stay_and_one_place_each():
    """A verifier that finds whatever has ended better than the rest: no ended row is lost but to two better ones."""

    def in_favour_of_ends(path, done):
        return jnp.where(done, 0.5 + 0.5 * by_number(path, done), 0.4 * by_number(path, done))

    ops = ScriptedOps(questions=20, n=8, min_steps=1, max_steps=5, verifier=in_favour_of_ends)
    seen = [run(ops, Beam(8, 4, rounds, "compete"))[0] for rounds in range(1, 6)]
    for before, after in itertools.pairwise(seen):
        for q in range(20):
            one, two = (
                [
                    int(p)
                    for p, ended in zip(s.path.reshape(20, 8)[q], s.finished.reshape(20, 8)[q], strict=True)
                    if ended
                ]
                for s in (before, after)
            )
            for path in set(one):
                better = sum(ops.score(other) > ops.score(path) for other in two)
                assert two.count(path) == one.count(path) or better >= 2, "one of the best two was dropped or copied"


@pytest.mark.parametrize("strategy", EACH, ids=lambda strategy: strategy.name)
def test_a_verifier_with_no_opinion_leaves_a_majority_vote(strategy):
    ops = ScriptedOps(questions=50, n=8, verifier=lambda path, _: jnp.full(path.shape, 0.3, jnp.float32))
    state, scored = run(ops, dataclasses.replace(strategy, max_rounds=4))
    assert 0 < int(state.finished.sum()) < len(state.finished), "no unfinished row among the candidates"
    answers = np.where(state.finished, np.asarray(state.path % 3, np.int64), -1).reshape(50, 8)
    last = np.take_along_axis(np.asarray(scored), np.asarray(state.steps)[:, None] - 1, axis=1).reshape(50, 8)
    weighted, majority = (select.choose(answers, last, rule) for rule in ("weighted", "majority"))
    np.testing.assert_array_equal(weighted, majority)


# Trees of depth 4 whose paths have 3 children each; what is best in them is known from all 81 leaves.
CHILDREN, DEPTH = 3, 4


def best_below(path, depth=0, known=None):
    """Return the score of the best leaf below a path, and enter that of every path on the way into `known`."""
    best = ScriptedOps.score(path)
    if depth < DEPTH:
        best = max(best_below(mix(path, child), depth + 1, known) for child in range(CHILDREN))
    if known is not None:
        known[path] = best
    return best


def greedily(path, depth):
    """Return the score of the leaf to which greedy steps lead."""
    for _ in range(depth, DEPTH):
        path = mix(path, 0)
    return ScriptedOps.score(path)


def tree(n, verifier):
    return ScriptedOps(20, n, min_steps=DEPTH, max_steps=DEPTH, children=CHILDREN, verifier=verifier)


@pytest.mark.parametrize("strategy", [Beam(3, 3), Beam(9, 3), Beam(16, 4), DVTS(9, 3)], ids=lambda s: s.name)
def test_a_perfect_verifier_leads_to_the_best_leaf(strategy):
    """Widths of at least 3 try all children of a kept path, so the way to the best leaf is never lost."""
    known = {}
    best = [best_below(question, known=known) for question in range(20)]
    paths = np.array(sorted(known), np.uint32)
    worth = jnp.asarray([known[int(path)] for path in paths], jnp.float32)

    def perfect(path, _):
        return worth[jnp.searchsorted(jnp.asarray(paths), path)]

    state, _ = run(tree(strategy.n, perfect), strategy)
    found = np.asarray(by_number(state.path, state.done)).reshape(20, -1).max(axis=1)
    np.testing.assert_array_equal(found, np.array(best, np.float32))


def test_lookahead_to_the_end_trusts_only_what_has_ended():
    """With k = DEPTH - 1 every rollout ends, so a verifier may be wrong of all else: the child kept in a round is the
    one from which greedy steps lead to the best leaf. The greedy child of a kept path is among the next candidates,
    so this value never falls: the best final row is at least as good as the best greedy way from any first step."""
    strategy = Lookahead(4, 4, k=DEPTH - 1)
    one_round, _ = run(tree(4, honest_at_the_end), dataclasses.replace(strategy, max_rounds=1))
    final, _ = run(tree(4, honest_at_the_end), strategy)
    found = np.asarray(by_number(final.path, final.done)).reshape(20, 4).max(axis=1)
    for question in range(20):
        children = [mix(question, child) for child in range(CHILDREN)]
        truly_best = max(children, key=lambda path: greedily(path, 1))
        assert set(one_round.path.reshape(20, 4)[question].tolist()) == {truly_best}
        assert found[question] >= np.float32(greedily(truly_best, 1))
    first_steps = np.array(
        [max(greedily(mix(q, child), 1) for child in range(CHILDREN)) for q in range(20)], np.float32
    )
    assert (found > first_steps).any(), "later rounds have found nothing better"
    blind, _ = run(tree(4, honest_at_the_end), Beam(4, 4))
    beam = np.asarray(by_number(blind.path, blind.done)).reshape(20, 4).max(axis=1)
    assert (beam < first_steps).any(), "the verifier misleads nobody: the test shows nothing"


# Which rows a search keeps, by hand.


def test_select_parents_keeps_the_best_and_every_place():
    score = jnp.array([[0.1, 0.9, 0.5, 0.7], [0.3, 0.3, 0.2, 0.1]])
    live = jnp.ones((2, 4), bool)
    assert select_parents(score, live, 2).tolist() == [1, 1, 3, 3, 4, 4, 5, 5], "ties go to the lower index"
    live = jnp.array([[True, False, True, True], [False, False, False, False]])
    parents = select_parents(score, live, 2).tolist()
    assert parents[1] == 1, "an ended row must stay where it is"
    assert parents[4:] == [4, 5, 6, 7], "a question with no live row must stay as it is"
    assert [parents[i] for i in (0, 2, 3)] == [3, 3, 2], "three places, width two: the best twice, the next once"


def test_ended_rows_that_compete_keep_their_places_among_the_best_alone():
    score = jnp.array([[0.1, 0.9, 0.5, 0.7], [0.8, 0.9, 0.5, 0.7], [0.8, 0.9, 0.5, 0.7], [0.4, 0.4, 0.4, 0.4]])
    live = jnp.array([[True, False, True, False], [False, False, True, False], [False] * 4, [False, True, True, False]])
    found = select_parents(score, live, 2, "compete").tolist()
    assert found[:4] == [2, 1, 2, 3], "1 and 3 are the best two; the places of 0 and 2 go on from 2"
    assert found[4:8] == [4, 5, 6, 6], "3 is third: its place goes on from 2, the only live row"
    assert found[8:12] == [8, 9, 10, 11], "nothing goes on, and nothing is dropped"
    assert found[12:] == [12, 13, 13, 14], "of equals the lower index stays; the other's place goes on"
    assert select_parents(score, live, 2)[4:8].tolist() == [4, 5, 6, 7]


@pytest.mark.parametrize("n", range(1, 9))
def test_select_parents_never_loses_a_place(n):
    for bits in itertools.product([False, True], repeat=n):
        live = jnp.array([bits])
        score = jnp.array([np.random.default_rng(n).permutation(n) / n])
        parents = np.asarray(select_parents(score, live, 3))
        kept = [p for p, alive in zip(parents, bits, strict=True) if alive]
        assert all(bits[p] for p in kept), "a live place continues a row that has ended"
        assert len(set(kept)) == -(-sum(bits) // 3)


def test_sqrt_width_is_the_largest_divisor_below_the_root():
    assert [sqrt_width(n) for n in (1, 2, 4, 8, 16, 32, 64, 256, 12)] == [1, 1, 2, 2, 4, 4, 8, 16, 3]
    assert Beam(16, "sqrt").plain() == Beam(16, 4).plain()
