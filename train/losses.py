"""Losses of the policy and of the verifier, as sums and weights so that any split of a batch adds up."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

_MAX_LOGITS = 2**25
"""Logits held at once by `next_token`: 128 MiB in float32."""


def token_cross_entropy(logits: jax.Array, targets: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the weighted sums of `-log p(target)` and of hits of the most likely token.

    Args:
        logits: `[..., V]`, any float type; the log-sum-exp is taken in float32.
        targets: Token ids `[...]`.
        weights: `[...]`; positions of weight 0 give no loss and no gradient, whatever their logits.
    """
    logits = logits.astype(jnp.float32)
    target_logits = jnp.take_along_axis(logits, targets[..., None], axis=-1)[..., 0]
    losses = jax.nn.logsumexp(logits, axis=-1) - target_logits
    hits = jnp.argmax(logits, axis=-1) == targets
    return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0)), jnp.sum(jnp.where(hits, weights, 0.0))


def next_token(
    head: Callable[[jax.Array], jax.Array],
    hidden_BTD: jax.Array,
    targets_BT: jax.Array,
    weights_BT: jax.Array,
    *,
    vocab_size: int,
    max_logits: int = _MAX_LOGITS,
) -> tuple[jax.Array, jax.Array]:
    """Return the weighted sums of next-token cross-entropy and of correct guesses.

    Where `B * T * V` exceeds `max_logits`, the head runs over slices of T, and each slice's logits are
    computed again in the backward pass in place of being kept.

    Args:
        head: Hidden states `[B, t, D]` to logits `[B, t, V]`.
        hidden_BTD: Final hidden states.
        targets_BT: The token after each position.
        weights_BT: Loss weights.
        vocab_size: V.
        max_logits: Most logits held at once.
    """
    B, T, _ = hidden_BTD.shape
    slices = next(n for n in range(1, T + 1) if T % n == 0 and (B * (T // n) * vocab_size <= max_logits or n == T))
    if slices == 1:
        return token_cross_entropy(head(hidden_BTD), targets_BT, weights_BT)

    def split(x: jax.Array) -> jax.Array:
        return jnp.moveaxis(x.reshape((B, slices, T // slices, *x.shape[2:])), 1, 0)

    @jax.checkpoint
    def one(sums: tuple[jax.Array, jax.Array], part: tuple[jax.Array, ...]) -> tuple[tuple[jax.Array, jax.Array], None]:
        hidden, targets, weights = part
        loss, hits = token_cross_entropy(head(hidden), targets, weights)
        return (sums[0] + loss, sums[1] + hits), None

    zero = jnp.zeros((), jnp.float32)
    return jax.lax.scan(one, (zero, zero), (split(hidden_BTD), split(targets_BT), split(weights_BT)))[0]


def step_binary(values: jax.Array, labels: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the weighted sums of binary cross-entropy with soft labels and of correct classifications.

    `-(y log s(v) + (1 - y) log(1 - s(v)))` of Snell et al. 2024, App. D, in the form
    `log(1 + exp(v)) - v y`, which is finite for every v. A step counts as classified correctly when
    `v > 0` agrees with `y > 0.5`.

    Args:
        values: Verifier outputs `[...]` before the sigmoid.
        labels: Soft labels in [0, 1].
        weights: 1 at step ends that carry a label, 0 elsewhere.
    """
    values = values.astype(jnp.float32)
    losses = jax.nn.softplus(values) - values * labels
    hits = (values > 0) == (labels > 0.5)
    return jnp.sum(jnp.where(weights > 0, losses * weights, 0.0)), jnp.sum(jnp.where(hits, weights, 0.0))
