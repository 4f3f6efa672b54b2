"""The verifier with a value head: process- and outcome-reward models of this library.

With `likelihood` it also follows the log-probability of the least likely token of each solution so far. Zero stands for
"none yet": no log-probability is above it.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ttcjax.config import ModelConfig
from ttcjax.model import cache, flops, heads
from ttcjax.model.params import Head, Params
from ttcjax.verify import verifier as base


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
class Reading(base.Reading):
    """A reading whose `hidden` is of the newest token read: it also says how likely the next one is."""

    least: jax.Array
    """`[B]` float32: log-probability of the least likely token read."""


@dataclass(frozen=True)
class ValueHead(base.Verifier):
    """A value head on the hidden state of a step's last token; the score is its sigmoid.

    It reads the policy's own prompts and tokens.
    """

    likelihood: bool = False
    """The head also sees the log-probability, under the model's own vocabulary head, of the least likely token of the
    solution so far. It costs a vocabulary product a token; see `PRMConfig.likelihood`."""

    @property
    def heads(self) -> tuple[Head, ...]:
        return ("value", "likelihood") if self.likelihood else ("value",)

    def feed(self, tokens_BS: jax.Array, length_B: jax.Array, begin_B: jax.Array, ends_BS: jax.Array) -> base.Fed:
        return base.Fed(tokens=tokens_BS, length=length_B, begin=begin_B, marks=ends_BS)

    def start(self, config: ModelConfig, rows: int, slots: int) -> Reading:
        none = super().start(config, rows, slots)
        return Reading(cache=none.cache, read=none.read, hidden=none.hidden, least=jnp.zeros((rows,), jnp.float32))

    def begin(self, reading: Any, fresh_B: jax.Array) -> Any:
        return dataclasses.replace(super().begin(reading, fresh_B), least=jnp.where(fresh_B, 0.0, reading.least))

    def read(
        self,
        params: Params,
        prefix: cache.PrefixCache,
        reading: Any,
        fed: base.Fed,
        config: ModelConfig,
        chunk: int,
    ) -> Any:
        every_row = jnp.arange(fed.tokens.shape[0])

        def note(reading: Any, chunk: base.Chunk) -> Any:
            least_B = reading.least
            if self.likelihood:
                before_BCD = jnp.concatenate([reading.hidden[:, None], chunk.hidden[:, :-1]], axis=1)
                logprob_BC = heads.token_logprobs(params, before_BCD, chunk.tokens, config)
                counted_BC = (chunk.slots >= fed.begin[:, None]) & (chunk.slots < fed.length[:, None])
                least_B = jnp.minimum(least_B, jnp.where(counted_BC, logprob_BC, 0.0).min(axis=1))
            newest_BD = chunk.hidden[every_row, jnp.maximum(chunk.count - 1, 0)]
            hidden_BD = jnp.where(chunk.count[:, None] > 0, newest_BD, reading.hidden)
            return dataclasses.replace(reading, hidden=hidden_BD, least=least_B)

        return base.read_chunks(params, prefix, reading, fed, config, chunk, note)

    def score(self, params: Params, reading: Any, config: ModelConfig) -> jax.Array:
        return jax.nn.sigmoid(self.value(params, reading.hidden, reading.least))

    def score_tokens(self, params: Params, prefix: cache.PrefixCache, fed: base.Fed, config: ModelConfig) -> jax.Array:
        hidden_BFD = cache.read(params, fed.tokens, prefix, config, fed.length)
        least_BF = None
        if self.likelihood:
            logprob_BF = token_logprobs(params, hidden_BFD, fed.tokens, config)
            counted_BF = jnp.arange(fed.tokens.shape[1])[None] >= fed.begin[:, None]
            least_BF = jax.lax.cummin(jnp.where(counted_BF, logprob_BF, 0.0), axis=1)
        return jax.nn.sigmoid(self.value(params, hidden_BFD, least_BF))

    def value(self, params: Params, hidden: jax.Array, least_logprob: jax.Array | None) -> jax.Array:
        """Return the value `[...]` of hidden states `[..., D]`, before the sigmoid.

        Args:
            params: With a value head.
            hidden: Normalised hidden states.
            least_logprob: `[...]`: of the least likely token of the solution up to there; without `likelihood` it is
                not looked at.
        """
        return heads.value(params, hidden, least_logprob if self.likelihood else None)

    def logits_together(self, chunk: int) -> int:
        return chunk if self.likelihood else 0

    def flops(self, config: ModelConfig, tokens: int, *, before: int) -> float:
        # The logits before all tokens but the first.
        return flops.forward(config, tokens, before=before, logits=max(0, tokens - 1) if self.likelihood else 0)
