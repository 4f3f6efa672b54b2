"""Heads on the hidden states; separate, so that a verifier pays for no vocabulary product."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from ttcjax.config import ModelConfig
from ttcjax.model.params import Params


def logits(params: Params, hidden: jax.Array, config: ModelConfig) -> jax.Array:
    """Return next-token logits `[..., V]` in float32 of hidden states `[..., D]`."""
    w_DV = params["embed"].T if config.tie_embeddings else params["unembed"]
    flat = hidden.reshape((-1, hidden.shape[-1]))
    out = jnp.matmul(flat, w_DV.astype(hidden.dtype), preferred_element_type=jnp.float32)
    if config.logit_soft_cap is not None:
        out = config.logit_soft_cap * jnp.tanh(out / config.logit_soft_cap)
    return out.reshape((*hidden.shape[:-1], w_DV.shape[1]))


LEAST_LOGPROB = -20.0
"""Log-probabilities below this are the same to the value head."""


_LANES = 16
"""Most float32 numbers that a CPU's vector holds."""


def log_normaliser(logits: jax.Array) -> jax.Array:
    """Return the logarithm `[...]` of the summed exponentials of logits `[..., V]`, for a row the same bits wherever
    it stands among others.

    XLA takes the logarithms of whole vectors on a CPU by other means than those of the numbers that are left over.
    """
    most = logits.max(axis=-1)
    # An infinite maximum is not subtracted: the sum is infinite or zero then, and no NaN.
    offset = jnp.where(jnp.isfinite(most), most, 0.0)
    sums = jnp.exp(logits - offset[..., None]).sum(axis=-1)
    flat = sums.reshape(-1)
    whole = jnp.log(jnp.pad(flat, (0, -flat.size % _LANES), constant_values=1.0))
    return whole[: flat.size].reshape(sums.shape) + offset


def token_logprob(params: Params, hidden: jax.Array, tokens: jax.Array, config: ModelConfig) -> jax.Array:
    """Return the log-probability `[...]` of `tokens` `[...]`, each given the hidden state `[..., D]` before it."""
    scores = logits(params, hidden, config)
    chosen = jnp.take_along_axis(scores, tokens[..., None], axis=-1)[..., 0]
    return chosen - log_normaliser(scores)


_LOGITS_AT_ONCE = 1 << 25
"""Numbers: 128 MB, where one token a row does not take more."""


def logits_at_once(rows: int, vocab_size: int) -> int:
    """Return the most logits that `token_logprobs` holds at once for so many rows."""
    return max(_LOGITS_AT_ONCE, rows * vocab_size)


def token_logprobs(params: Params, hidden_BTD: jax.Array, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """Return `token_logprob` `[B, T]`, some slots at a time: logits of all would fill the memory."""
    B, T = tokens_BT.shape
    together = max(1, _LOGITS_AT_ONCE // (B * config.vocab_size))
    if together >= T:
        return token_logprob(params, hidden_BTD, tokens_BT, config)
    pairs = (jnp.swapaxes(hidden_BTD, 0, 1), tokens_BT.T)
    found = jax.lax.map(lambda pair: token_logprob(params, pair[0], pair[1], config), pairs, batch_size=together)
    return found.T


def value(params: Params, hidden: jax.Array, least_logprob: jax.Array | None = None) -> jax.Array:
    """Return the value `[...]` in float32 of hidden states `[..., D]`, before any sigmoid.

    Args:
        params: Model parameters with a value head.
        hidden: Normalised hidden states.
        least_logprob: `[...]`: of the least likely token of the solution up to there, for a head with `likelihood`.

    Raises:
        ValueError: The head has `likelihood` and is given none, or is given one and has no `likelihood`.
    """
    head = params["value"]
    out = (hidden.astype(jnp.float32) @ head["w"].astype(jnp.float32)) + head["b"].astype(jnp.float32)
    if ("likelihood" in head) != (least_logprob is not None):
        raise ValueError("a value head with likelihood needs least_logprob, and one without does not look at it")
    if least_logprob is not None:
        out = out + head["likelihood"].astype(jnp.float32) * jnp.maximum(least_logprob, LEAST_LOGPROB)
    return out
