"""The process-reward model on the device: scores of steps, each token read once.

A verifier with `value_likelihood` also follows the log-probability of the least likely token of each solution
so far. Zero stands for "none yet": no log-probability is above it.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import struct

from ttcjax.config import ModelConfig
from ttcjax.model import cache, heads, transformer
from ttcjax.model.params import Params


def token_logprobs(params: Params, hidden_BTD: jax.Array, tokens_BT: jax.Array, config: ModelConfig) -> jax.Array:
    """Log-probability `[B, T]` of each token given those before it; 0 for the first, which has none here."""
    rest = heads.token_logprobs(params, hidden_BTD[:, :-1], tokens_BT[:, 1:], config)
    return jnp.pad(rest, ((0, 0), (1, 0)))


def packed_least_logprob(logprob_BT: jax.Array, segment_ids_BT: jax.Array, solution_BT: jax.Array) -> jax.Array:
    """Return the log-probability `[B, T]` of the least likely solution token so far in each packed example.

    Args:
        logprob_BT: From `token_logprobs`.
        segment_ids_BT: Packed examples.
        solution_BT: 1 on tokens of solutions, 0 on prompts and padding.
    """
    first_BT = jnp.pad(segment_ids_BT[:, 1:] != segment_ids_BT[:, :-1], ((0, 0), (1, 0)), constant_values=True)

    def join(a: tuple[jax.Array, jax.Array], b: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        return a[0] | b[0], jnp.where(b[0], b[1], jnp.minimum(a[1], b[1]))

    counted_BT = jnp.where(solution_BT > 0, logprob_BT, 0.0)
    return jax.lax.associative_scan(join, (first_BT, counted_BT), axis=1)[1]


@struct.dataclass
class Reading:
    """How far the verifier has read B rows, and what it needs to go on; every token is read once."""

    cache: cache.SuffixCache
    """Holds slots `0 .. read - 1`."""
    read: jax.Array
    """`[B]` int32."""
    hidden: jax.Array
    """`[B, D]`: normalised hidden state of the newest token read; it says how likely the next one is."""
    least: jax.Array
    """`[B]` float32: log-probability of the least likely token read."""

    def fork(self, parent_B: jax.Array) -> Reading:
        """Give row `b` what has been read of row `parent_B[b]`."""
        return jax.tree.map(lambda leaf: leaf[parent_B], self)


def start_reading(config: ModelConfig, rows: int, slots: int) -> Reading:
    """Return `rows` rows of which nothing has been read."""
    return Reading(
        cache=cache.empty_suffix(config, rows, slots),
        read=jnp.zeros((rows,), jnp.int32),
        hidden=jnp.zeros((rows, config.d_model), transformer.compute_dtype(config)),
        least=jnp.zeros((rows,), jnp.float32),
    )


def begin_reading(reading: Reading, fresh_B: jax.Array) -> Reading:
    """Forget what was read of the fresh rows; what their caches hold is never read again."""
    return Reading(
        cache=reading.cache,
        read=jnp.where(fresh_B, 0, reading.read),
        hidden=jnp.where(fresh_B[:, None], 0, reading.hidden),
        least=jnp.where(fresh_B, 0.0, reading.least),
    )


def read_on(
    params: Params,
    prefix: cache.PrefixCache,
    reading: Reading,
    tokens_BS: jax.Array,
    length_B: jax.Array,
    config: ModelConfig,
    chunk: int,
) -> Reading:
    """Read the tokens `read .. length - 1` of each row, `chunk` at a time until every row is read.

    Args:
        params: Verifier parameters, with a value head.
        prefix: The verifier's cache of the prompts.
        reading: Where each row stands.
        tokens_BS: Rows of tokens; slot 0 belongs to the prompt.
        length_B: Slots set.
        config: Shape of the verifier.
        chunk: Tokens read at once; what is read does not depend on it.
    """
    B, S = tokens_BS.shape
    every_row = jnp.arange(B)

    def unread(reading: Reading) -> jax.Array:
        return (reading.read < length_B).any()

    def one_chunk(reading: Reading) -> Reading:
        slots_BC = reading.read[:, None] + jnp.arange(chunk)[None]
        tokens_BC = jnp.take_along_axis(tokens_BS, jnp.minimum(slots_BC, S - 1), axis=1)
        hidden_BCD, suffix = cache.extend(params, tokens_BC, reading.read, prefix, reading.cache, config)
        least_B = reading.least
        if config.value_likelihood:
            before_BCD = jnp.concatenate([reading.hidden[:, None], hidden_BCD[:, :-1]], axis=1)
            logprob_BC = heads.token_logprobs(params, before_BCD, tokens_BC, config)
            counted_BC = (slots_BC > 0) & (slots_BC < length_B[:, None])
            least_B = jnp.minimum(least_B, jnp.where(counted_BC, logprob_BC, 0.0).min(axis=1))
        count_B = jnp.clip(length_B - reading.read, 0, chunk)
        newest_BD = hidden_BCD[every_row, jnp.maximum(count_B - 1, 0)]
        return Reading(
            cache=suffix,
            read=reading.read + count_B,
            hidden=jnp.where(count_B[:, None] > 0, newest_BD, reading.hidden),
            least=least_B,
        )

    return jax.lax.while_loop(unread, one_chunk, reading)


def score(params: Params, reading: Reading, config: ModelConfig) -> jax.Array:
    """Return the score `[B]`, a probability in (0, 1), of the newest token read of each row."""
    return jax.nn.sigmoid(heads.value(params, reading.hidden, config, reading.least))


def score_tokens(
    params: Params,
    prefix: cache.PrefixCache,
    tokens_BS: jax.Array,
    begin_B: jax.Array,
    config: ModelConfig,
    length_B: jax.Array | None = None,
) -> jax.Array:
    """Return the score `[B, S]` of every token of whole rows, probabilities in (0, 1).

    Slots before `begin` belong to the prompt: how likely they are does not count. Scores of slots from `length` on
    mean nothing.
    """
    hidden_BSD = cache.read(params, tokens_BS, prefix, config, length_B)
    least_BS = None
    if config.value_likelihood:
        logprob_BS = token_logprobs(params, hidden_BSD, tokens_BS, config)
        counted_BS = jnp.arange(tokens_BS.shape[1])[None] >= begin_B[:, None]
        least_BS = jax.lax.cummin(jnp.where(counted_BS, logprob_BS, 0.0), axis=1)
    return jax.nn.sigmoid(heads.value(params, hidden_BSD, config, least_BS))


def at_step_ends(values_BS: jax.Array, ends_BS: jax.Array, max_steps: int) -> jax.Array:
    """Gather per-token values into `[B, max_steps]`, one a step end, the rest 0."""
    step_BS = jnp.where(ends_BS, jnp.cumsum(ends_BS, axis=1) - 1, max_steps)
    rows_B1 = jnp.arange(values_BS.shape[0])[:, None]
    return jnp.zeros((values_BS.shape[0], max_steps), values_BS.dtype).at[rows_B1, step_BS].set(values_BS, mode="drop")
