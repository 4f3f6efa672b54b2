"""Beam search against brute force, on a scripted engine with no network."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ttcjax.config import ConfigError
from ttcjax.search import registry
from ttcjax.search.beam import Beam, select_parents, sqrt_width
from ttcjax.search.best_of_n import BestOfN
from ttcjax.testing import ScriptedOps
from ttcjax.testing.scripted import mix


def brute_force(ops: ScriptedOps, n: int, width: int, max_rounds: int):
    """Beam search as the paper's text tells it, question by question, with lists."""
    finals, drawn = [], [0] * (ops.questions * n)
    for q in range(ops.questions):
        rows: list[tuple[int, tuple[float, ...]]] = [(q, ()) for _ in range(n)]  # (path, scores of its steps)
        done = [False] * n
        for search_round in range(max_rounds):
            if all(done):
                break
            for i in range(n):
                if not done[i]:
                    path = mix(rows[i][0], i, search_round)
                    rows[i] = (path, (*rows[i][1], ops.score(path)))
                    drawn[q * n + i] += 1
                    done[i] = ops.ends(path, len(rows[i][1]))
            live = [i for i in range(n) if not done[i]]
            best = sorted(live, key=lambda i: (-rows[i][1][-1], i))[: -(-len(live) // width)]
            children = [rows[i] for i in best for _ in range(width)][: len(live)]
            for i, child in zip(live, children, strict=True):
                rows[i] = child
        finals += rows
    return finals, drawn


@pytest.mark.parametrize(
    ("n", "width", "max_rounds"), [(4, 4, 40), (4, 2, 40), (16, 4, 40), (8, 2, 40), (64, 8, 40), (8, 4, 2)]
)
def test_beam_equals_brute_force(n, width, max_rounds):
    ops = ScriptedOps(questions=5, n=n)
    strategy = Beam(n, width, max_rounds)
    state, scored = jax.jit(lambda: ops.search(strategy))()
    finals, drawn = brute_force(ops, n, width, max_rounds)
    assert [int(p) for p in state.path] == [path for path, _ in finals], "another row was kept or continued"
    assert state.drawn.tolist() == drawn, "steps were sampled for rows that had ended, or not for live ones"
    for row, (_, scores) in enumerate(finals):
        expected = np.zeros(ops.max_steps, np.float32)
        expected[: len(scores)] = scores
        np.testing.assert_array_equal(scored[row], expected, "scores did not follow their rows")


def test_verifier_reads_each_sampled_step_once():
    ops = ScriptedOps(questions=3, n=16)
    state = jax.jit(lambda: ops.search(Beam(16, 4))[0])()
    np.testing.assert_array_equal(state.read, state.drawn)


def test_a_question_ends_alike_alone_and_among_others():
    def paths(ops):
        return jax.jit(lambda: ops.search(Beam(8, 4))[0].path)().reshape(-1, 8).tolist()

    together = paths(ScriptedOps(questions=4, n=8))
    assert len({path for row in together for path in row}) > 8
    for q, row in enumerate(together):
        assert paths(ScriptedOps(questions=1, n=8, first=q)) == [row], "a row continued another question's row"


def test_select_parents_keeps_the_best_and_every_place():
    score = jnp.array([[0.1, 0.9, 0.5, 0.7], [0.3, 0.3, 0.2, 0.1]])
    live = jnp.ones((2, 4), bool)
    assert select_parents(score, live, 2).tolist() == [1, 1, 3, 3, 4, 4, 5, 5], "ties go to the lower index"
    live = jnp.array([[True, False, True, True], [False, False, False, False]])
    parents = select_parents(score, live, 2).tolist()
    assert parents[1] == 1, "an ended row must stay where it is"
    assert parents[4:] == [4, 5, 6, 7], "a question with no live row must stay as it is"
    assert [parents[i] for i in (0, 2, 3)] == [3, 3, 2], "three places, width two: the best twice, the next once"


@pytest.mark.parametrize("n", range(1, 9))
def test_select_parents_never_loses_a_place(n):
    for bits in itertools.product([False, True], repeat=n):
        live = jnp.array([bits])
        score = jnp.array([np.random.default_rng(n).permutation(n) / n])
        parents = np.asarray(select_parents(score, live, 3))
        kept = [p for p, alive in zip(parents, bits, strict=True) if alive]
        assert all(bits[p] for p in kept), "a live place continues a row that has ended"
        assert len(set(kept)) == -(-sum(bits) // 3)


@pytest.mark.parametrize(("n", "width"), [(1, 4), (2, 4), (2, "sqrt"), (1, "sqrt"), (3, "sqrt"), (5, 1)])
def test_small_budgets_fall_back_to_best_of_n(n, width):
    assert Beam(n, width).resolved() == BestOfN(n)


def test_sqrt_width_is_the_largest_divisor_below_the_root():
    assert [sqrt_width(n) for n in (1, 2, 4, 8, 16, 32, 64, 256, 12)] == [1, 1, 2, 2, 4, 4, 8, 16, 3]
    assert Beam(16, "sqrt").resolved() == Beam(16, 4).resolved()


def test_names_round_trip():
    for strategy in (Beam(16, 4), Beam(8, "sqrt"), BestOfN(4), BestOfN(2, select="majority")):
        assert registry.parse(strategy.name) == strategy
        assert strategy.cost() == strategy.n
    assert registry.parse("majority", n=8) == BestOfN(8, "majority")
    assert registry.parse("beam:width=sqrt", n=8, max_rounds=7) == Beam(8, "sqrt", 7)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("beem:n=4", "'beam'"),
        ("beam:n=4,widht=4", "'width'"),
        ("beam:n=x", "whole number"),
        ("beam:n=0", "whole number"),
        ("beam:n=4,width=cube", "'sqrt'"),
        ("best_of_n:n=4,select=worst", "'weighted'"),
        ("beam", "needs n"),
        ("beam:n=\u00b2", "whole number"),
        ("beam:n=99999999999999999999", "up to 65536"),
        ("majority:n=4,select=best", "best_of_n:select=best"),
    ],
)
def test_bad_names_say_what_is_meant(text, hint):
    with pytest.raises(ConfigError, match=hint):
        registry.parse(text)


@pytest.mark.parametrize(
    ("name", "hint"), [("beem", "'beam'"), ("beam:n=8,width=4", "must not fix n"), ("beam:width=0", "whole number")]
)
def test_a_sweep_refuses_what_it_could_not_run(name, hint):
    registry.check_for_sweep(["majority", "best_of_n:select=weighted", "beam:width=4", "beam:width=sqrt"])
    with pytest.raises(ConfigError, match=hint):
        registry.check_for_sweep(["majority", name])
