"""Cached forward passes: a prompt's keys and values stand once, each row adds only its own suffix."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ttcjax.config import ModelConfig
from ttcjax.kernels.shared_prefix_attention.api import shared_prefix_attention, write_suffix
from ttcjax.model import transformer
from ttcjax.model.layer import apply_layer
from ttcjax.model.params import Params
from ttcjax.model.rotary import rotary

_PREFILL_TOKENS = 4096
"""Prompt tokens that are read at once."""


@struct.dataclass
class PrefixCache:
    """Keys and values of one prefix a question; `length_Q` of the P slots are used."""

    k: tuple[jax.Array, ...]
    """L arrays `[Q, K, P, E]`."""
    v: tuple[jax.Array, ...]
    length_Q: jax.Array


@struct.dataclass
class SuffixCache:
    """Keys and values of each row's own tokens; how many slots are used, the caller keeps.

    One array a layer, not one for all: a loop then updates each in place, and no step reads or writes more
    of it than attention needs.
    """

    k: tuple[jax.Array, ...]
    """L arrays `[B, K, S, E]`."""
    v: tuple[jax.Array, ...]


def empty_suffix(config: ModelConfig, rows: int, slots: int) -> SuffixCache:
    """Return a zeroed suffix cache for `rows` rows of `slots` slots."""
    shape = (rows, config.num_kv_heads, slots, config.head_dim)
    zeros = tuple(jnp.zeros(shape, transformer.compute_dtype(config)) for _ in range(config.num_layers))
    return SuffixCache(k=zeros, v=tuple(jnp.zeros_like(z) for z in zeros))


def prefill(
    params: Params,
    tokens_QP: jax.Array,
    length_Q: jax.Array,
    config: ModelConfig,
    *,
    together: int | None = None,
    used: jax.Array | None = None,
) -> PrefixCache:
    """Compute the cache of one prefix a question.

    Args:
        params: Model parameters.
        tokens_QP: Prefix tokens, padded on the right.
        length_Q: Tokens of each prefix, 0 to P.
        config: Shape of the model.
        together: Prefixes that are read at once, at most `most_prefilled`; by default `prefilled_together`. With a
            number given, no shape that a prefix is read in depends on Q.
        used: int32: of how many questions, the first ones, the cache will be read; all of them by default.
    """
    Q, P = tokens_QP.shape

    def read(tokens: jax.Array) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
        positions = jnp.broadcast_to(jnp.arange(P)[None], tokens.shape)
        _, (k, v) = transformer.forward(params, tokens, positions, config, return_kv=True)
        k, v = (tuple(jnp.swapaxes(x[i], 1, 2) for i in range(config.num_layers)) for x in (k, v))
        return k, v

    if together is None:
        together = prefilled_together(Q, P)
        if together == Q:
            k, v = read(tokens_QP)
            return PrefixCache(k=k, v=v, length_Q=length_Q)
    together = min(together, most_prefilled(P))
    k, v = by_parts(read, tokens_QP, together, Q if used is None else used)
    return PrefixCache(k=k, v=v, length_Q=length_Q)


def by_parts(fn: Callable[[Any], Any], args: Any, size: int, used: int | jax.Array) -> Any:
    """Return `fn(args)`, computed `size` questions at a time.

    Args:
        fn: Takes and returns trees of arrays whose leading axes have as many entries a question, the same in the
            parts as in the whole.
        args: The arrays of all questions `[Q * ..., ...]`.
        size: Questions of a part; the last one is filled up with zeros.
        used: How many questions there are, the first ones; parts without any are not computed, and are 0.
    """
    leaves = jax.tree.leaves(args)
    Q = leaves[0].shape[0]
    # At least two: of one alone the compiler sees that it is all there is, and fuses, and so rounds, otherwise.
    parts = max(2, -(-Q // size))

    def split(x: jax.Array) -> jax.Array:
        each = x.shape[0] // Q
        x = jnp.pad(x, ((0, (parts * size - Q) * each), *[(0, 0)] * (x.ndim - 1)))
        return x.reshape((parts, size * each, *x.shape[1:]))

    def part(i: jax.Array | int) -> list[jax.Array]:
        # Leaves, not trees: what JAX puts in the place of arrays to learn their shapes need not suit a struct's types.
        found = fn(jax.tree.map(lambda x: jax.lax.dynamic_index_in_dim(x, i, keepdims=False), held))
        leaves, trees[0] = jax.tree.flatten(found)
        return leaves

    def one(i: jax.Array, out: list[jax.Array]) -> list[jax.Array]:
        pairs = zip(out, part(i), strict=True)
        return [jax.lax.dynamic_update_index_in_dim(whole, x, i, 0) for whole, x in pairs]

    held, trees = jax.tree.map(split, args), [jax.tree.structure(None)]
    empty = [jnp.zeros((parts, *x.shape), x.dtype) for x in jax.eval_shape(lambda: part(0))]
    # The number of parts is not known to the compiler, which would compute a single one otherwise than one of many.
    count = -(-jnp.minimum(jnp.asarray(used, jnp.int32), Q) // size)
    out = jax.lax.fori_loop(0, count, one, empty)
    whole = [x.reshape((-1, *x.shape[2:]))[: Q * (x.shape[1] // size)] for x in out]
    return jax.tree.unflatten(trees[0], whole)


def prefilled_together(questions: int, slots: int) -> int:
    """Return how many of `questions` prefixes of `slots` slots are read at once: a divisor, for activations of
    few megabytes a layer and yet large matrix products."""
    return next(d for d in range(min(most_prefilled(slots), questions), 0, -1) if questions % d == 0)


def most_prefilled(slots: int) -> int:
    """Return the most prefixes of `slots` slots that are read at once."""
    return max(1, _PREFILL_TOKENS // max(1, slots))


def extend(
    params: Params,
    tokens_BC: jax.Array,
    start_B: jax.Array,
    prefix: PrefixCache,
    suffix: SuffixCache,
    config: ModelConfig,
) -> tuple[jax.Array, SuffixCache]:
    """Read the next tokens of every row: suffix slots `start .. start + C - 1`.

    Slots at and after `start + C` keep what they held; slots past the end of the cache are not written.
    Reading a row's token again at the same slot writes the same values again, so rows that have ended may
    idle in a loop.

    Args:
        params: Model parameters, their layers a list (`params.unstack_layers`).
        tokens_BC: Tokens to read.
        start_B: Suffix slots already used by each row.
        prefix: Prefix of each question; row `b` belongs to question `b // (B / Q)`.
        suffix: The rows' own cache.
        config: Shape of the model.

    Returns:
        Normalised hidden states `[B, C, D]` and the extended suffix cache.
    """
    B, C = tokens_BC.shape
    Q = prefix.length_Q.shape[0]
    slot_BC = start_B[:, None] + jnp.arange(C)[None]
    positions_BC = jnp.repeat(prefix.length_Q, B // Q)[:, None] + slot_BC
    x = transformer.embed(params, tokens_BC, config)
    cos, sin = rotary(config, positions_BC)
    local_L = transformer.layer_is_local(config)
    new_k, new_v = [], []
    for i, layer in enumerate(params["layers"]):
        kind = int(local_L[i])

        def attend(q: jax.Array, k: jax.Array, v: jax.Array, i: int = i, kind: int = kind) -> tuple[jax.Array, Any]:
            k_BKSE, v_BKSE = write_suffix(suffix.k[i], suffix.v[i], k, v, start_B)
            mixed = shared_prefix_attention(
                q,
                prefix.k[i],
                prefix.v[i],
                prefix.length_Q,
                k_BKSE,
                v_BKSE,
                slot_BC,
                scale=transformer.query_scale(config),
                soft_cap=config.attn_soft_cap,
                window=config.sliding_window if kind else None,
            )
            return mixed, (k_BKSE, v_BKSE)

        x, (k_BKSE, v_BKSE) = apply_layer(layer, x, cos[kind], sin[kind], config, attend)
        new_k.append(k_BKSE)
        new_v.append(v_BKSE)
    return transformer.final_norm(params, x, config), SuffixCache(k=tuple(new_k), v=tuple(new_v))


READ_TOGETHER = 128
"""Most tokens of a row that are read at once where whole rows are read: scores `[H, S, S]` stay small."""
_PIECE = 64
"""Tokens of a longer row that are read at once: what is read beyond a row's end is lost work."""


def read(
    params: Params,
    tokens_BS: jax.Array,
    prefix: PrefixCache,
    config: ModelConfig,
    length_B: jax.Array | None = None,
) -> jax.Array:
    """Return the normalised hidden states `[B, S, D]` of whole rows over cached prefixes; see `fill`."""
    return fill(params, tokens_BS, prefix, empty_suffix(config, *tokens_BS.shape), config, length_B)[0]


def fill(
    params: Params,
    tokens_BS: jax.Array,
    prefix: PrefixCache,
    suffix: SuffixCache,
    config: ModelConfig,
    length_B: jax.Array | None = None,
) -> tuple[jax.Array, SuffixCache]:
    """Read rows from their first slot on; see `extend`.

    Rows of more than `READ_TOGETHER` slots are read in pieces, as many as the longest of them needs. The hidden states
    of what was not read are 0.

    Args:
        params: As in `extend`.
        tokens_BS: Rows, padded on the right with any token.
        prefix: As in `extend`.
        suffix: As in `extend`.
        config: As in `extend`.
        length_B: int32: slots set in each row; all of them by default.
    """
    B, S = tokens_BS.shape
    if S <= READ_TOGETHER:
        return extend(params, tokens_BS, jnp.zeros((B,), jnp.int32), prefix, suffix, config)
    padded_BS = jnp.pad(tokens_BS, ((0, 0), (0, -S % _PIECE)))
    until = jnp.int32(S) if length_B is None else length_B.max()

    def unread(carry: tuple[jax.Array, SuffixCache, jax.Array]) -> jax.Array:
        return carry[0] < until

    def piece(carry: tuple[jax.Array, SuffixCache, jax.Array]) -> tuple[jax.Array, SuffixCache, jax.Array]:
        start, suffix, hidden_BSD = carry
        tokens_BC = jax.lax.dynamic_slice_in_dim(padded_BS, start, _PIECE, axis=1)
        hidden_BCD, suffix = extend(params, tokens_BC, jnp.broadcast_to(start, (B,)), prefix, suffix, config)
        return start + _PIECE, suffix, jax.lax.dynamic_update_slice_in_dim(hidden_BSD, hidden_BCD, start, axis=1)

    hidden_BSD = jnp.zeros((*padded_BS.shape, config.d_model), transformer.compute_dtype(config))
    _, suffix, hidden_BSD = jax.lax.while_loop(unread, piece, (jnp.int32(0), suffix, hidden_BSD))
    return hidden_BSD[:, :S], suffix


def take(prefixes: PrefixCache, question_G: jax.Array) -> PrefixCache:
    """Return a copy of the prefixes of some questions."""
    return jax.tree.map(lambda leaf: leaf[question_G], prefixes)


def switch(current: PrefixCache, prefixes: PrefixCache, question_G: jax.Array, changed: jax.Array) -> PrefixCache:
    """Return `take(prefixes, question_G)`, or `current` as it is where nothing has changed."""
    return jax.lax.cond(changed, lambda: take(prefixes, question_G), lambda: current)
