"""Continuous batching on the device: a fixed number of rows works through more samples than there are rows.

Rows stand in groups of equal size, and the rows of a group share the prefix of one question. A row that ends
goes on with the next sample of its group's question; a group whose question has no sample left, and whose rows
have all ended, goes on with the next question. A sample depends on its question and its number alone, never on
the row that draws it.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import struct


@struct.dataclass
class Queue:
    """Work of G groups of rows, on Q questions with up to n samples each."""

    next_question: jax.Array
    """int32 scalar: the first question that no group has taken."""
    question_G: jax.Array
    """`[G]` int32: the question of each group."""
    handed_G: jax.Array
    """`[G]` int32: samples of that question handed out to rows."""
    request_B: jax.Array
    """`[B]` int32: the sample each row draws, as `question * n + sample`; `Q * n` for a row that idles."""


def start(groups: int, rows: int, questions: int, n: int) -> Queue:
    """Return the queue of `questions` questions with up to `n` samples each, before any is handed out."""
    return Queue(
        next_question=jnp.int32(0),
        question_G=jnp.zeros((groups,), jnp.int32),
        handed_G=jnp.full((groups,), n, jnp.int32),
        request_B=jnp.full((rows,), questions * n, jnp.int32),
    )


def waiting(queue: Queue, count_Q: jax.Array) -> jax.Array:
    """Return whether samples are still to be handed out; see `hand_out`."""
    return (queue.next_question < (count_Q > 0).sum()) | (queue.handed_G < count_Q[queue.question_G]).any()


def hand_out(queue: Queue, idle_B: jax.Array, count_Q: jax.Array, n: int) -> tuple[Queue, jax.Array]:
    """Give idle rows their next samples.

    Args:
        queue: The queue.
        idle_B: Rows that have ended, or have never worked; the requests of those left without work become `Q * n`.
        count_Q: int32: samples each question wants, at most n; questions that want none come last.
        n: Most samples a question.

    Returns:
        The queue, and the rows `[B]` that begin a new sample.
    """
    G, Q = queue.question_G.shape[0], count_Q.shape[0]
    used = (count_Q > 0).sum(dtype=jnp.int32)
    idle_GR = idle_B.reshape((G, -1))
    free_G = idle_GR.all(axis=1) & (queue.handed_G >= count_Q[queue.question_G])
    offered_G = queue.next_question + jnp.cumsum(free_G) - 1
    switched_G = free_G & (offered_G < used)
    question_G = jnp.where(switched_G, offered_G, queue.question_G)
    handed_G = jnp.where(switched_G, 0, queue.handed_G)
    sample_GR = handed_G[:, None] + jnp.cumsum(idle_GR, axis=1) - 1
    fresh_GR = idle_GR & (sample_GR < count_Q[question_G][:, None])
    kept_GR = jnp.where(idle_GR, Q * n, queue.request_B.reshape((G, -1)))
    request_GR = jnp.where(fresh_GR, question_G[:, None] * n + sample_GR, kept_GR)
    queue = Queue(
        next_question=queue.next_question + switched_G.sum(dtype=jnp.int32),
        question_G=question_G,
        handed_G=handed_G + fresh_GR.sum(axis=1, dtype=jnp.int32),
        request_B=request_GR.reshape(-1),
    )
    return queue, fresh_GR.reshape(-1)


def renew(fresh_B: jax.Array, new: Any, old: Any) -> Any:
    """Return `new` in the fresh rows and `old` in the others; leaves `[B, ...]` that are in both trees stay.

    Fresh may be groups too: leaves are then `[G, ...]`, or `[B, ...]` with the rows of a group adjacent.
    """

    def leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        if a is b:
            return a
        fresh = jnp.repeat(fresh_B, a.shape[0] // fresh_B.shape[0]) if a.shape[0] != fresh_B.shape[0] else fresh_B
        return jnp.where(fresh.reshape((-1,) + (1,) * (a.ndim - 1)), a, b)

    return jax.tree.map(leaf, new, old)


def harvest(out: Any, rows: Any, request_B: jax.Array, ended_B: jax.Array) -> Any:
    """Write ended rows to their places: leaves of `out` are `[Q * n, ...]`, those of `rows` `[B, ...]`."""

    def leaf(a: jax.Array, b: jax.Array) -> jax.Array:
        place_B = jnp.where(ended_B, request_B, a.shape[0])
        return a.at[place_B].set(b, mode="drop")

    return jax.tree.map(leaf, out, rows)
