"""The contract of a verifier: a model that reads a policy's solutions and says how likely each step leads to a right
answer.

A verifier is a frozen dataclass of settings: hashable, so that it can be static in a compiled program. The parameters
and the shape of its model are given to every method. It reads a row in one of two ways, which agree: piece by piece
while a search extends the row (`start`, `begin`, `read`, `score`), or as a whole (`score_steps`). In both it reads what
`feed` makes of the row's tokens. `ttcjax.verify.formats` lists the verifiers that there are.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ttcjax.config import ModelConfig
from ttcjax.model import cache, flops, transformer
from ttcjax.model.params import Head, Params
from ttcjax.runtime.errors import UserError


@struct.dataclass
class Fed:
    """Tokens that a verifier reads of B rows: slot 0 is the last token of its prompt, the row's own tokens follow."""

    tokens: jax.Array
    """`[B, F]` int32; what the slots from `length` on hold means nothing."""
    length: jax.Array
    """`[B]` int32: slots set."""
    begin: jax.Array
    """`[B]` int32: slot at which the solution begins; what stands before was given to the policy."""
    marks: jax.Array
    """`[B, F]` bool: slots below `length` at which a step is judged, in the order of the steps."""


@struct.dataclass
class Reading:
    """State of a verifier that has read B rows so far and can go on; every token is read once."""

    cache: cache.SuffixCache
    """Holds slots `0 .. read - 1` of what is fed."""
    read: jax.Array
    """`[B]` int32."""
    hidden: jax.Array
    """`[B, D]`: normalised hidden state of the token at which the row is judged now."""

    def fork(self, parent_B: jax.Array) -> Any:
        """Give row `b` what has been read of row `parent_B[b]`."""
        return jax.tree.map(lambda leaf: leaf[parent_B], self)


class Verifier(abc.ABC):
    """Contract of verifiers: what one reads, and what its score is.

    A subclass is a frozen dataclass whose fields are numbers, words and tuples of these; they stand in the metadata of
    its checkpoint.
    """

    @property
    @abc.abstractmethod
    def heads(self) -> tuple[Head, ...]:
        """Heads that its parameters have beside the trunk; see `ttcjax.model.params.spec`."""

    def check(self, model: ModelConfig, policy: ModelConfig) -> None:
        """Refuse a model that cannot read what the policy writes.

        Args:
            model: Shape of the verifier.
            policy: Shape of the policy.

        Raises:
            UserError: The ids of one mean nothing to the other.
        """
        if model.vocab_size != policy.vocab_size:
            raise UserError(
                f"the verifier has a vocabulary of {model.vocab_size} ids and the policy one of {policy.vocab_size}: "
                "take a verifier that was trained with the policy's tokenizer"
            )

    def prompt(self, text: str) -> str:
        """Return what stands before a solution for the verifier, where the policy is given `text`."""
        return text

    def reads(self, tokens: int, steps: int) -> int:
        """Return how many tokens it reads of a row of so many tokens, of which so many end a step."""
        return tokens

    def slots(self, slots: int) -> int:
        """Return F, the most slots that are fed of rows of `slots` slots: slot 0 ends no step."""
        return self.reads(slots, slots - 1)

    @abc.abstractmethod
    def feed(self, tokens_BS: jax.Array, length_B: jax.Array, begin_B: jax.Array, ends_BS: jax.Array) -> Fed:
        """Return what is read of rows, in the verifier's own ids; what is fed of a row begins with what was fed of any
        head of it.

        Args:
            tokens_BS: Slot 0 is the last token of the verifier's prompt; slots from `length` on hold any token.
            length_B: Slots set.
            begin_B: Slots at which solutions begin.
            ends_BS: Which slots, all below `length`, end a step of the solution.
        """

    def start(self, config: ModelConfig, rows: int, slots: int) -> Reading:
        """Return `rows` rows of `slots` slots of which nothing has been read."""
        return Reading(
            cache=cache.empty_suffix(config, rows, self.slots(slots)),
            read=jnp.zeros((rows,), jnp.int32),
            hidden=jnp.zeros((rows, config.d_model), transformer.compute_dtype(config)),
        )

    def begin(self, reading: Reading, fresh_B: jax.Array) -> Reading:
        """Forget what was read of the fresh rows; what their caches hold is never read again."""
        return dataclasses.replace(
            reading,
            read=jnp.where(fresh_B, 0, reading.read),
            hidden=jnp.where(fresh_B[:, None], 0, reading.hidden),
        )

    @abc.abstractmethod
    def read(
        self,
        params: Params,
        prefix: cache.PrefixCache,
        reading: Reading,
        fed: Fed,
        config: ModelConfig,
        chunk: int,
    ) -> Reading:
        """Read on to the end of what is fed of each row; `read_chunks` does most of it.

        Args:
            params: Of the verifier, their layers a list.
            prefix: The verifier's cache of the prompts.
            reading: Where each row stands.
            fed: The rows.
            config: Shape of the verifier.
            chunk: Tokens read at once; what is found does not depend on it.
        """

    @abc.abstractmethod
    def score(self, params: Params, reading: Reading, config: ModelConfig) -> jax.Array:
        """Return the score `[B]`, a probability, of each row as far as it was read; at the end of a step it is the
        step's, as `score_steps` has it."""

    @abc.abstractmethod
    def score_tokens(self, params: Params, prefix: cache.PrefixCache, fed: Fed, config: ModelConfig) -> jax.Array:
        """Return the score `[B, F]` of every slot of whole rows, probabilities; only those at marks are looked at, and
        no more need be read than `fed.length` says."""

    def score_steps(
        self, params: Params, prefix: cache.PrefixCache, fed: Fed, config: ModelConfig, max_steps: int
    ) -> jax.Array:
        """Return the scores `[B, max_steps]` of the steps of whole rows, 0 past a row's steps."""
        return at_marks(self.score_tokens(params, prefix, fed, config), fed.marks, max_steps)

    def logits_together(self, chunk: int) -> int:
        """Return of how many tokens a row it holds the logits at once, where it reads `chunk` tokens a row together."""
        return 0

    def flops(self, config: ModelConfig, tokens: int, *, before: int) -> float:
        """Return the executed FLOPs of reading a row; how it is cut into chunks makes no difference.

        Args:
            config: Shape of the verifier.
            tokens: Tokens read after the cached prompt, the prompt's last one among them.
            before: Tokens of the prompt but its last.
        """
        return flops.forward(config, tokens, before=before, logits=0)


@dataclass(frozen=True)
class Chunk:
    """Some tokens of B rows that were just read."""

    tokens: jax.Array
    """`[B, C]` int32."""
    slots: jax.Array
    """`[B, C]` int32: where they stand in what is fed."""
    marks: jax.Array
    """`[B, C]` bool: whether a step is judged there."""
    hidden: jax.Array
    """`[B, C, D]`: normalised hidden states."""
    count: jax.Array
    """`[B]` int32: how many are a row's, the first ones; the others stand past its end."""


def read_chunks(
    params: Params,
    prefix: cache.PrefixCache,
    reading: Reading,
    fed: Fed,
    config: ModelConfig,
    chunk: int,
    note: Callable[[Reading, Chunk], Reading],
) -> Any:
    """Read the slots `read .. length - 1` of each row, `chunk` at a time until every row is read.

    Args:
        params: As for `Verifier.read`, like those that follow.
        prefix: The prompts.
        reading: Where each row stands.
        fed: The rows.
        config: Shape of the verifier.
        chunk: Tokens read at once.
        note: Returns the reading with what the verifier keeps of a chunk; `cache` and `read` are seen to.
    """
    F = fed.tokens.shape[1]

    def unread(reading: Reading) -> jax.Array:
        return (reading.read < fed.length).any()

    def one_chunk(reading: Reading) -> Reading:
        slots_BC = reading.read[:, None] + jnp.arange(chunk)[None]
        tokens_BC, marks_BC = (
            jnp.take_along_axis(x, jnp.minimum(slots_BC, F - 1), axis=1) for x in (fed.tokens, fed.marks)
        )
        hidden_BCD, suffix = cache.extend(params, tokens_BC, reading.read, prefix, reading.cache, config)
        count_B = jnp.clip(fed.length - reading.read, 0, chunk)
        marks_BC = marks_BC & (slots_BC < fed.length[:, None])
        noted = note(reading, Chunk(tokens_BC, slots_BC, marks_BC, hidden_BCD, count_B))
        return dataclasses.replace(noted, cache=suffix, read=reading.read + count_B)

    return jax.lax.while_loop(unread, one_chunk, reading)


def at_marks(values_BF: jax.Array, marks_BF: jax.Array, max_steps: int) -> jax.Array:
    """Gather values of slots into `[B, max_steps]`, one a mark, the rest 0."""
    step_BF = jnp.where(marks_BF, jnp.cumsum(marks_BF, axis=1) - 1, max_steps)
    rows_B1 = jnp.arange(values_BF.shape[0])[:, None]
    return jnp.zeros((values_BF.shape[0], max_steps), values_BF.dtype).at[rows_B1, step_BF].set(values_BF, mode="drop")
