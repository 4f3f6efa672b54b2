"""The verifier that is a language model asked for one of two tokens after each step.

The way of Math-Shepherd (Wang et al. 2024, section 3.4: a mark after each step, "+" against "-" at it) and of RLHFlow's
process-reward models (Dong et al. 2024: each step a turn of a chat, answered by "+" or "-").
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from ttcjax.config import ModelConfig, require
from ttcjax.model import cache, heads
from ttcjax.model.params import Head, Params
from ttcjax.runtime.errors import UserError
from ttcjax.verify import verifier as base

STEP_END = -1
"""Stands for the token that ends a step."""


@dataclass(frozen=True)
class TokenPair(base.Verifier):
    """The probability of one token against another in the logits at each step's mark: a softmax over the two.

    A step's end is fed as `marks`, so what the verifier reads may hold tokens that the policy never sees. Some ways:

    - `(STEP_END,)`: the step's own end is its mark;
    - `(STEP_END, mark)`: a mark after it;
    - `(mark, STEP_END)`: a mark before it, as Math-Shepherd has it;
    - `(STEP_END, *ends_the_turn, good, *begins_the_next)`, read `at` the last token before `good`: turns of a chat, as
      RLHFlow has them.

    A row that is read within a step has the score of its last step that has ended, and 0.5 before any has.
    """

    good: int
    """Id of the token of a right step."""
    bad: int
    """Id of the token of a wrong one."""
    marks: tuple[int, ...] = (STEP_END,)
    """Ids fed in the place of a step's end, `STEP_END` for the end itself."""
    at: int = 0
    """Place in `marks` whose logits judge the step."""
    template: str = "{prompt}"
    """Text before the solution, `{prompt}` for the policy's prompt."""

    def __post_init__(self) -> None:
        require(self.good != self.bad, f"good and bad are both token {self.good}: a score compares two")
        most = len(self.marks) - 1
        require(0 <= self.at <= most, f"at ({self.at}) must be a place in marks, from 0 to {most}")
        require("{prompt}" in self.template, f"the template {self.template!r} must hold {{prompt}}")

    @property
    def heads(self) -> tuple[Head, ...]:
        return ("vocab",)

    def check(self, model: ModelConfig, policy: ModelConfig) -> None:
        super().check(model, policy)
        for token in (self.good, self.bad, *(mark for mark in self.marks if mark != STEP_END)):
            if not 0 <= token < model.vocab_size:
                raise UserError(
                    f"token {token} of the verifier is not in its vocabulary of {model.vocab_size}: take the ids of "
                    "its own tokenizer"
                )

    def prompt(self, text: str) -> str:
        return self.template.replace("{prompt}", text)

    def reads(self, tokens: int, steps: int) -> int:
        return tokens + (len(self.marks) - 1) * steps

    def feed(self, tokens_BS: jax.Array, length_B: jax.Array, begin_B: jax.Array, ends_BS: jax.Array) -> base.Fed:
        B, S = tokens_BS.shape
        F = self.slots(S)
        set_BS = jnp.arange(S)[None] < length_B[:, None]
        width_BS = jnp.where(set_BS, jnp.where(ends_BS, len(self.marks), 1), 0)
        until_BS = jnp.cumsum(width_BS, axis=1)
        first_BS, rows_B1 = until_BS - width_BS, jnp.arange(B)[:, None]
        # Past the end, where a write is dropped, for tokens that are not set.
        fed_BF = jnp.zeros((B, F), jnp.int32)
        fed_BF = fed_BF.at[rows_B1, jnp.where(set_BS & ~ends_BS, first_BS, F)].set(tokens_BS, mode="drop")
        for place, mark in enumerate(self.marks):
            slot_BS = jnp.where(ends_BS, first_BS + place, F)
            what_BS = tokens_BS if mark == STEP_END else jnp.full_like(tokens_BS, mark)
            fed_BF = fed_BF.at[rows_B1, slot_BS].set(what_BS, mode="drop")
        judged_BS = jnp.where(ends_BS, first_BS + self.at, F)
        marks_BF = jnp.zeros((B, F), bool).at[rows_B1, judged_BS].set(True, mode="drop")
        # No step ends before the solution begins, so nothing is put in there.
        return base.Fed(tokens=fed_BF, length=until_BS[:, -1], begin=begin_B, marks=marks_BF)

    def read(
        self,
        params: Params,
        prefix: cache.PrefixCache,
        reading: base.Reading,
        fed: base.Fed,
        config: ModelConfig,
        chunk: int,
    ) -> Any:
        every_row = jnp.arange(fed.tokens.shape[0])

        def note(reading: Any, read: base.Chunk) -> Any:
            last_B = jnp.where(read.marks, jnp.arange(chunk)[None], -1).max(axis=1)
            newest_BD = read.hidden[every_row, jnp.maximum(last_B, 0)]
            return dataclasses.replace(reading, hidden=jnp.where(last_B[:, None] >= 0, newest_BD, reading.hidden))

        return base.read_chunks(params, prefix, reading, fed, config, chunk, note)

    def score(self, params: Params, reading: base.Reading, config: ModelConfig) -> jax.Array:
        return self._probability(params, reading.hidden, config)

    def score_tokens(self, params: Params, prefix: cache.PrefixCache, fed: base.Fed, config: ModelConfig) -> jax.Array:
        hidden_BFD = cache.read(params, fed.tokens, prefix, config, fed.length)
        return self._probability(params, hidden_BFD, config)

    def _probability(self, params: Params, hidden: jax.Array, config: ModelConfig) -> jax.Array:
        """Return the probability `[...]` of `good` against `bad` after hidden states `[..., D]`; of the vocabulary's
        other tokens no logits are computed."""
        two = jnp.array([self.good, self.bad])
        of_two = {"embed": params["embed"][two]} if config.tie_embeddings else {"unembed": params["unembed"][:, two]}
        return jax.nn.softmax(heads.logits(of_two, hidden, config), axis=-1)[..., 0]
