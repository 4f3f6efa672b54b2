"""Which rows a search keeps."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from ttcjax.search.strategies.beam import Beam, select_parents, sqrt_width


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
