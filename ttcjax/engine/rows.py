"""The rows of a batch in flight, and the loop that samples them on the device."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

import jax
import jax.numpy as jnp
from flax import struct

from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.engine import draw
from ttcjax.model import cache, heads
from ttcjax.model.params import Params
from ttcjax.text.step_marks import StepMarks


@struct.dataclass
class Rows:
    """B sequences under way.

    Slot 0 of a row is the last token of its prompt; what the row itself has sampled follows. At any time:

    - slots `0 .. length - 1` of `tokens` are set, `length >= 1`; what the others hold means nothing;
    - the policy's suffix cache holds slots `0 .. length - 2`: the newest token has been drawn, not read;
    - a row is done once it ends with a stop token or has `length - 1 == room`;
    - `done` rows are never changed again; `finished` rows are done and end with a stop token;
    - `steps` counts the step ends among the sampled tokens.
    """

    tokens: jax.Array
    """`[B, S]` int32."""
    length: jax.Array
    """`[B]` int32."""
    steps: jax.Array
    """`[B]` int32."""
    step_state: jax.Array
    """`[B]` int32: state of `StepMarks` after the sampled tokens."""
    done: jax.Array
    """`[B]` bool."""
    finished: jax.Array
    """`[B]` bool: ended by a stop token."""
    logprob: jax.Array
    """`[B]` float32: summed over the sampled tokens."""
    broken: jax.Array
    """`[B]` bool: some token at this place of the batch was drawn from logits that are not finite, be it one of a
    dropped sequence; see `draw.draw`."""
    sampled: jax.Array
    """`[B]` int32: tokens drawn at this place of the batch, those of dropped sequences included."""
    room: jax.Array
    """`[B]` int32: most tokens to be sampled, at most S - 1."""
    keys: jax.Array
    """`[B]` random keys, one a (seed, question, sample)."""
    cache: cache.SuffixCache

    def fork(self, parent_B: jax.Array) -> Rows:
        """Continue row `parent_B[b]` at place `b`; keys, token counts and `broken` stay with the place."""
        return dataclasses.replace(self, **jax.tree.map(lambda leaf: leaf[parent_B], self.of_row))

    @property
    def of_row(self) -> dict[str, Any]:
        """The fields that go where a row goes: all but `keys`, `sampled` and `broken`, which are of its place."""
        names = {field.name for field in dataclasses.fields(self)} - {"keys", "sampled", "broken"}
        return {name: getattr(self, name) for name in sorted(names)}


def question_number(question_id: str) -> int:
    """Return 32 bits of a question's id, the question's part of every random key."""
    return int.from_bytes(hashlib.sha256(question_id.encode(errors="surrogatepass")).digest()[:4], "big")


def row_keys(seed: int | jax.Array, question_B: jax.Array, sample_B: jax.Array) -> jax.Array:
    """Return a key a row, from seed, question number and sample index alone.

    A token's key is this folded with the search round and the token's slot; so a sample is the same in any
    batch, order, or number of devices.
    """
    return jax.vmap(jax.random.fold_in)(question_keys(seed, question_B), sample_B)


def question_keys(seed: int | jax.Array, question_Q: jax.Array) -> jax.Array:
    """Return a key a question, from which those of its samples are made, from seed and question number."""
    root = jax.random.key(seed)
    return jax.vmap(lambda q: jax.random.fold_in(root, q))(question_Q)


def start(
    last_prompt_token_B: jax.Array,
    room_B: jax.Array,
    keys_B: jax.Array,
    unused_B: jax.Array,
    slots: int,
    suffix: cache.SuffixCache,
) -> Rows:
    """Return rows that have sampled nothing, each with room for so many tokens.

    `unused` rows are done from the start. What `suffix` holds already does no harm: a slot is written before
    it is read.
    """
    B = last_prompt_token_B.shape[0]
    room_B = jnp.minimum(room_B, slots - 1)
    return Rows(
        tokens=jnp.zeros((B, slots), jnp.int32).at[:, 0].set(last_prompt_token_B),
        length=jnp.ones((B,), jnp.int32),
        steps=jnp.zeros((B,), jnp.int32),
        step_state=jnp.zeros((B,), jnp.int32),
        done=unused_B | (room_B <= 0),
        finished=jnp.zeros((B,), bool),
        logprob=jnp.zeros((B,), jnp.float32),
        broken=jnp.zeros((B,), bool),
        sampled=jnp.zeros((B,), jnp.int32),
        room=room_B,
        keys=keys_B,
        cache=suffix,
    )


def decode(
    params: Params,
    prefix: cache.PrefixCache,
    rows: Rows,
    round_B: jax.Array,
    model: ModelConfig,
    sampler: SamplerConfig,
    marks: StepMarks,
    *,
    max_new: int,
    one_step: bool,
    factors_2: jax.Array | None = None,
) -> Rows:
    """Sample every row that is not done: to its end, or, with `one_step`, to the end of its next step.

    Args:
        params: Policy parameters.
        prefix: The prompts but their last tokens.
        rows: Rows to extend.
        round_B: `[B]` int32 folded into the keys, so that rows resampled at the same slot in a later round of
            a search draw afresh; 0 outside searches.
        model: Shape of the policy.
        sampler: Temperature and filters.
        marks: Ends of steps and of solutions.
        max_new: Most tokens added to a row; with `one_step` a step of that length is cut there.
        one_step: Stop each row at its next step end.
        factors_2: Of the temperature, in place of the sampler's; see `draw.factors`.
    """
    B, S = rows.tokens.shape
    keys_B = jax.vmap(jax.random.fold_in)(rows.keys, round_B)
    every_row = jnp.arange(B)

    def running(carry: tuple[Rows, jax.Array, jax.Array]) -> jax.Array:
        _, active_B, count = carry
        return active_B.any() & (count < max_new)

    def token(carry: tuple[Rows, jax.Array, jax.Array]) -> tuple[Rows, jax.Array, jax.Array]:
        rows, active_B, count = carry
        last_B = rows.tokens[every_row, rows.length - 1]
        hidden, suffix = cache.extend(params, last_B[:, None], rows.length - 1, prefix, rows.cache, model)
        logits_BV = heads.logits(params, hidden[:, 0], model)
        token_keys = jax.vmap(jax.random.fold_in)(keys_B, rows.length)
        token_B, logprob_B = draw.draw(logits_BV, token_keys, sampler, factors_2)
        slot_B = jnp.where(active_B, rows.length, S)
        step_state_B, end_B = marks.step(rows.step_state, token_B)
        end_B = active_B & end_B
        finished_B = active_B & marks.stops(token_B)
        length_B = rows.length + active_B.astype(jnp.int32)
        rows = dataclasses.replace(
            rows,
            tokens=rows.tokens.at[every_row, slot_B].set(token_B, mode="drop"),
            length=length_B,
            steps=rows.steps + end_B.astype(jnp.int32),
            step_state=jnp.where(active_B, step_state_B, rows.step_state),
            finished=rows.finished | finished_B,
            done=rows.done | finished_B | (length_B > rows.room),
            sampled=rows.sampled + active_B.astype(jnp.int32),
            logprob=rows.logprob + jnp.where(active_B, logprob_B, 0.0),
            broken=rows.broken | (active_B & jnp.isnan(logprob_B)),
            cache=suffix,
        )
        active_B = active_B & ~rows.done
        return rows, (active_B & ~end_B) if one_step else active_B, count + 1

    rows, _, _ = jax.lax.while_loop(running, token, (rows, ~rows.done, jnp.int32(0)))
    return rows
