"""A store of rows on the device, for searches that go back: so many slots a question, each with all that a row is.

What a row is, is a tree of arrays `[B, ...]`, the n rows of a question adjacent; a store of K slots a question is such
a tree of `[Q * K, ...]`. A slot of -1 is none.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp


def empty(rows: Any, n: int, slots: int) -> Any:
    """Return a store with K slots for every n of some rows, or `None` where K is 0."""
    if not slots:
        return None
    return jax.tree.map(lambda x: jnp.zeros((x.shape[0] // n * slots, *x.shape[1:]), x.dtype), rows)


def save(store: Any, rows: Any, slot_B: jax.Array, n: int, slots: int) -> Any:
    """Return the store with row `b` in slot `slot_B[b]` of its question; two rows of a question need two slots."""
    place_B = _place(slot_B, n, slots)
    # Past the end, where nothing is written; -1 would be the last slot.
    return jax.tree.map(
        lambda kept, x: kept.at[jnp.where(place_B < 0, len(kept), place_B)].set(x, mode="drop"), store, rows
    )


def load(store: Any, rows: Any, slot_B: jax.Array, n: int, slots: int) -> Any:
    """Return the rows with those of slots `slot_B[b]` of their questions in their places."""
    place_B = _place(slot_B, n, slots)

    def leaf(kept: jax.Array, x: jax.Array) -> jax.Array:
        taken_B = (place_B >= 0).reshape((-1, *[1] * (x.ndim - 1)))
        return jnp.where(taken_B, kept[jnp.maximum(place_B, 0)], x)

    return jax.tree.map(leaf, store, rows)


def _place(slot_B: jax.Array, n: int, slots: int) -> jax.Array:
    """Return where slots of the rows' questions stand in a store; -1 for what is no slot."""
    question_B = jnp.arange(slot_B.shape[0], dtype=jnp.int32) // n
    return jnp.where((slot_B >= 0) & (slot_B < slots), question_B * slots + slot_B, -1)
