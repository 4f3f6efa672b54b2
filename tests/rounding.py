"""How far two correct computations may lie apart: bounds from the arithmetic, not from what one machine gave.

A machine adds in an order of its own: by the width of its vectors, the number of its threads, the shape of a batch.
Tests compare with a reference in float64 where there is one, and then one computation has rounded; or two that have.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

UNIT = {"float64": 2.0**-53, "float32": 2.0**-24, "bfloat16": 2.0**-8}
"""Largest relative error of one operation, by dtype."""


def of(operations: float, dtype: str = "float32") -> float:
    """Return the largest relative error of a result that so many roundings lie behind, one after the other.

    Higham, Accuracy and Stability of Numerical Algorithms, 2002, Lemma 3.1. A sum of n numbers has n - 1 in any order,
    relative to the sum of their absolute values; a sum of n products n.
    """
    return operations * UNIT[dtype] / (1 - operations * UNIT[dtype])


def of_sum(size: Any, terms: int, more: int = 0, dtype: str = "float32") -> Any:
    """Return the largest error of sums of products.

    Args:
        size: Sums of the products' absolute values.
        terms: Products in each.
        more: Roundings of each term, or of the sum, beside those of products and sum.
        dtype: Of the sums.
    """
    return of(terms + more, dtype) * np.asarray(size, np.float64)


def of_log_softmax(terms: int, largest: float) -> float:
    """Return the largest error of float32 log-probabilities of so many logits up to a size.

    The sum of exponentials is off by its terms and a few, and the more where logits less the largest round, up to twice
    their size; its logarithm and the differences are off by as much as they are large.
    """
    return of(terms + 4 + 2 * largest) + 2 * of(2 * largest + np.log(terms))


def on_grid(values: Any) -> np.ndarray:
    """Return numbers rounded to eighths, of at most 16: in bfloat16 and float32 they are exact.

    So is, in float32, every sum of up to 2^10 products of theirs, in any order: a multiple of 1/64 below 2^18.
    """
    return np.clip(np.round(np.asarray(values) * 8), -128, 128) / 8


def noise(fn: Callable[[Any], Any], inputs: Any, operations: float, draws: int = 3) -> float:
    """Return how far apart the results of a whole model may be that rounds in two different orders.

    The rounded result of a sum of n products is the exact one of factors that are each off by up to `of(n)`. So
    here the model runs with parameters that are off by as much, up or down at random, and the largest change of any
    result is taken, twice: both computations have rounded. What rounds beside the sums (exponentials, norms) is a few
    roundings for each of their n.

    Args:
        fn: From a tree like `inputs` to arrays.
        inputs: Float32 parameters.
        operations: Terms of the longest sum.
        draws: Times that it is tried.
    """
    plain = [np.asarray(x, np.float64) for x in jax.tree.leaves(fn(inputs))]
    largest = 0.0
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        off = jax.tree.map(
            lambda x, rng=rng: jnp.asarray(x * (1 + of(operations) * rng.choice([-1, 1], np.shape(x))), x.dtype), inputs
        )
        found = [np.asarray(x, np.float64) for x in jax.tree.leaves(fn(off))]
        largest = max(largest, *(float(np.abs(a - b).max()) for a, b in zip(plain, found, strict=True)))
    return 2 * largest
