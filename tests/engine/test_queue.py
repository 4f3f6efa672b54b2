"""The queue of samples against a loop in Python: every sample once, in groups that share a question."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ttcjax.engine import queue


def works(groups, group_rows, count, n, seed):
    """Let rows take random times; yield (request, question of the row's group) of every sample begun."""
    rng = np.random.default_rng(seed)
    rows, questions = groups * group_rows, len(count)
    line = queue.start(groups, rows, questions, n)
    left = np.zeros(rows, int)
    hand_out = jax.jit(queue.hand_out, static_argnums=3)
    for _ in range(1000):
        line, fresh = hand_out(line, jnp.asarray(left == 0), jnp.asarray(count), n)
        request, fresh = np.asarray(line.request_B), np.asarray(fresh)
        for b in np.flatnonzero(fresh):
            yield int(request[b]), int(line.question_G[b // group_rows])
        idle = (left == 0) & ~fresh
        assert (request[idle] == questions * n).all(), "a row without work would write a result"
        left[fresh] = rng.integers(1, 9, fresh.sum())
        left = np.maximum(left - 1, 0)
        if not queue.waiting(line, jnp.asarray(count)) and not left.any():
            return
    raise AssertionError("the queue does not run empty")


@pytest.mark.parametrize(
    ("groups", "group_rows", "count", "n"),
    [
        (1, 1, [1], 1),
        (2, 3, [7] * 5, 7),
        (4, 2, [2] * 3, 2),
        (3, 4, [4] * 5 + [0] * 3, 4),
        (2, 4, [3] * 8, 3),
        (2, 2, [0] * 4, 3),
        (2, 3, [5, 1, 7, 2, 4, 0], 7),
        (3, 2, [1, 6, 6, 1, 0, 0], 9),
    ],
)
@pytest.mark.parametrize("seed", range(5))
def test_every_sample_is_drawn_once_by_a_row_of_its_question(groups, group_rows, count, n, seed):
    begun = list(works(groups, group_rows, count, n, seed))
    wanted = [q * n + i for q, most in enumerate(count) for i in range(most)]
    assert sorted(request for request, _ in begun) == wanted, "samples were lost, repeated or padding"
    assert all(request // n == question for request, question in begun), "a row reads another question's prefix"


def test_rows_do_not_wait_while_their_question_has_samples():
    """One row is slow; the other three draw all the rest of the question meanwhile."""
    line = queue.start(1, 4, 1, 10)
    line, fresh = queue.hand_out(line, jnp.ones(4, bool), jnp.array([10]), 10)
    assert fresh.all()
    for first in (4, 7):
        idle = jnp.array([False, True, True, True])
        line, fresh = queue.hand_out(line, idle, jnp.array([10]), 10)
        assert line.request_B.tolist() == [0, first, first + 1, first + 2]
    assert not queue.waiting(line, jnp.array([10]))


def test_results_are_written_to_their_places_only_when_rows_end():
    out = {"a": jnp.zeros((6, 2))}
    rows = {"a": jnp.arange(8.0).reshape(4, 2)}
    request = jnp.array([5, 0, 2, 6])  # 6: no work
    found = queue.harvest(out, rows, request, jnp.array([True, True, False, True]))
    np.testing.assert_array_equal(found["a"][:, 0], [2, 0, 0, 0, 0, 0])
    np.testing.assert_array_equal(found["a"][:, 1], [3, 0, 0, 0, 0, 1])
