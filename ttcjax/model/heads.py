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


def value(params: Params, hidden: jax.Array, config: ModelConfig) -> jax.Array:
    """Return the value `[...]` in float32 of hidden states `[..., D]`, before any sigmoid."""
    del config
    head = params["value"]
    return (hidden.astype(jnp.float32) @ head["w"].astype(jnp.float32)) + head["b"].astype(jnp.float32)
