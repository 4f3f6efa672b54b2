"""The engine's compiled programs, and the shapes they share with programs built on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.engine import draw, queue
from ttcjax.engine import rows as sampling
from ttcjax.model import cache, heads
from ttcjax.model.params import Params
from ttcjax.text.step_marks import StepMarks
from ttcjax.verify.verifier import Fed, Verifier


@struct.dataclass
class Judged:
    """Q prompts as the verifier reads them, padded like those of the policy."""

    prefix: jax.Array
    """`[Q, P]` int32."""
    prefix_length: jax.Array
    """`[Q]` int32."""
    last: jax.Array
    """`[Q]` int32."""


@struct.dataclass
class Prompts:
    """Q prompts of a batch, padded."""

    prefix: jax.Array
    """`[Q, P]` int32: every prompt but its last token, padded on the right."""
    prefix_length: jax.Array
    """`[Q]` int32."""
    last: jax.Array
    """`[Q]` int32: the last token of each prompt, slot 0 of its rows."""
    room: jax.Array
    """`[Q]` int32: most tokens of a solution."""
    number: jax.Array
    """`[Q]` uint32: `rows.question_number`, the question's part of random keys."""
    first: jax.Array
    """`[Q]` uint32: index of the first sample, the sample's part of random keys."""
    count: jax.Array
    """`[Q]` int32: samples to draw, at most `Plan.n`; 0 for padding."""
    judged: Judged | None = None
    """Prompts of a verifier that has its own."""

    @property
    def read(self) -> Prompts | Judged:
        """The prompts as the verifier reads them."""
        return self if self.judged is None else self.judged


@struct.dataclass
class Sampled:
    """Results of sampling B rows; see `rows.Rows`."""

    tokens: jax.Array
    length: jax.Array
    finished: jax.Array
    logprob: jax.Array
    broken: jax.Array
    sampled: jax.Array


@dataclass(frozen=True)
class Plan:
    """Static part of a program: model shapes and limits."""

    policy: ModelConfig
    sampler: SamplerConfig
    """Its temperature counts where a program is given no `draw.factors`, and tells by 0 that nothing is drawn."""
    marks: StepMarks
    n: int
    """Most samples of a question; results stand n apart."""
    slots: int
    """S: tokens a row can hold, the prompt's last token included."""
    groups: int
    """G: questions under way at once on a device."""
    group_rows: int
    """Rows of each group; n for programs whose rows depend on each other."""
    verifier: ModelConfig | None = None
    judge: Verifier | None = None
    """Format in which the verifier is asked."""
    max_steps: int = 0
    prefill: int | None = None
    """Prompts that are read at once; by default what suits the number of questions."""

    @property
    def rows(self) -> int:
        """B."""
        return self.groups * self.group_rows

    def at(self, temperature: float | None) -> tuple[Plan, np.ndarray]:
        """Return the plan of a program that serves all temperatures above 0, and the `draw.factors` of one to call it
        with; at 0 its own plan, and factors that are not looked at. The sampler's temperature is the default."""
        chosen = self.sampler.temperature if temperature is None else temperature
        sampler = dataclasses.replace(self.sampler, temperature=1.0 if chosen > 0 else 0.0)
        return dataclasses.replace(self, sampler=sampler), draw.factors(chosen)


_Carry = tuple[queue.Queue, sampling.Rows, cache.PrefixCache, Sampled]
"""Queue, rows, the prefixes of the groups, results."""

_REFILL_EVERY = 4
"""Tokens between two looks for rows that have ended: between rows that idle and looks in vain."""


def idle_rows(plan: Plan) -> sampling.Rows:
    """Return rows that have no sample to draw."""
    none = jnp.zeros((plan.rows,), jnp.int32)
    keys = sampling.row_keys(0, none.astype(jnp.uint32), none.astype(jnp.uint32))
    empty = cache.empty_suffix(plan.policy, plan.rows, plan.slots)
    return sampling.start(none, none, keys, none == 0, plan.slots, empty)


def begin(
    rows: sampling.Rows,
    fresh_B: jax.Array,
    prompts: Prompts,
    request_B: jax.Array,
    seed: jax.Array,
    plan: Plan,
) -> sampling.Rows:
    """Let the fresh rows begin the samples they were handed; what their caches hold is never read again."""
    question_B = jnp.minimum(request_B // plan.n, prompts.last.shape[0] - 1)
    sample_B = prompts.first[question_B] + (request_B % plan.n).astype(jnp.uint32)
    keys = sampling.row_keys(seed, prompts.number[question_B], sample_B)
    last_B, room_B = prompts.last[question_B], prompts.room[question_B]
    new = sampling.start(last_B, room_B, keys, ~fresh_B, plan.slots, rows.cache)
    return queue.renew(fresh_B, new, rows)


def result(rows: sampling.Rows) -> Sampled:
    """Return the fields of rows that are copied to the host."""
    return Sampled(
        tokens=rows.tokens,
        length=rows.length,
        finished=rows.finished,
        logprob=rows.logprob,
        broken=rows.broken,
        sampled=rows.sampled,
    )


def no_results(rows: Any, count: int) -> Any:
    """Return zeros for `count` results shaped like those of `rows`."""
    return jax.tree.map(lambda leaf: jnp.zeros((count, *leaf.shape[1:]), leaf.dtype), rows)


def prefill(params: Params, prompts: Prompts, plan: Plan, *, verifier: bool = False) -> cache.PrefixCache:
    """Return the policy's cache of the prompts, or the verifier's."""
    model, read = (plan.verifier, prompts.read) if verifier else (plan.policy, prompts)
    assert model is not None
    used = (prompts.count > 0).sum(dtype=jnp.int32)
    return cache.prefill(params, read.prefix, read.prefix_length, model, together=plan.prefill, used=used)


def _by_groups(fn: Callable[..., Any], plan: Plan, prompts: Prompts, *rows: jax.Array) -> Any:
    """Return `fn(prompts, *rows)`, computed `plan.groups` questions at a time; there are n rows a question."""
    used = (prompts.count > 0).sum(dtype=jnp.int32)
    return cache.by_parts(lambda held: fn(held[0], *held[1:]), (prompts, *rows), plan.groups, used)


def sample(
    params: Params, prompts: Prompts, seed: jax.Array, factors_2: jax.Array | None = None, *, plan: Plan
) -> Sampled:
    """Sample the solutions of each prompt to their ends; row `q * n + i` is the `i`th of prompt `q`.

    Args:
        params: Policy parameters.
        prompts: The prompts.
        seed: Root of all random numbers.
        factors_2: Of the temperature, see `draw.factors`; by default the plan's.
        plan: Shapes and limits.
    """
    Q = prompts.last.shape[0]
    prefixes = prefill(params, prompts, plan)
    at_once = plan.groups >= Q and plan.group_rows >= plan.n

    def under_way(carry: _Carry) -> jax.Array:
        line, rows, _, _ = carry
        return ~rows.done.all() | queue.waiting(line, prompts.count)

    def turn(carry: _Carry) -> _Carry:
        line, rows, prefix, out = carry
        before_G = line.question_G
        line, fresh_B = queue.hand_out(line, rows.done, prompts.count, plan.n)
        prefix = cache.switch(prefix, prefixes, line.question_G, (line.question_G != before_G).any())
        rows = begin(rows, fresh_B, prompts, line.request_B, seed, plan)
        rows = sampling.decode(
            params,
            prefix,
            rows,
            jnp.zeros_like(rows.length),
            plan.policy,
            plan.sampler,
            plan.marks,
            max_new=plan.slots - 1 if at_once else _REFILL_EVERY,
            one_step=False,
            factors_2=factors_2,
        )
        return line, rows, prefix, queue.harvest(out, result(rows), line.request_B, rows.done)

    rows = idle_rows(plan)
    line = queue.start(plan.groups, plan.rows, Q, plan.n)
    prefix = cache.take(prefixes, line.question_G)
    out = no_results(result(rows), Q * plan.n)
    return jax.lax.while_loop(under_way, turn, (line, rows, prefix, out))[-1]


def resume(
    params: Params,
    prompts: Prompts,
    tokens_BC: jax.Array,
    length_B: jax.Array,
    sample_B: jax.Array,
    round_B: jax.Array,
    seed: jax.Array,
    factors_2: jax.Array | None = None,
    *,
    plan: Plan,
) -> Sampled:
    """Go on with rows that have tokens of their own after the prompt, each to its end.

    Args:
        params: Policy parameters.
        prompts: Their `room` counts new tokens; each has `plan.n` rows, of which `count` are used.
        tokens_BC: Tokens so far, padded on the right; slot 0 is the prompt's last.
        length_B: Slots set.
        sample_B: uint32: the sample's part of random keys.
        round_B: int32: folded into the keys after that.
        seed: Root of all random numbers.
        factors_2: As in `sample`.
        plan: Its slots hold old and new tokens.
    """
    C = tokens_BC.shape[1]

    def part(
        prompts: Prompts, tokens_BC: jax.Array, length_B: jax.Array, sample_B: jax.Array, round_B: jax.Array
    ) -> Sampled:
        question_B = jnp.repeat(jnp.arange(plan.groups), plan.n)
        unused_B = jnp.tile(jnp.arange(plan.n), plan.groups) >= prompts.count[question_B]
        prefix = prefill(params, prompts, plan)
        empty = cache.empty_suffix(plan.policy, plan.rows, plan.slots)
        _, suffix = cache.fill(params, tokens_BC, prefix, empty, plan.policy, length_B)
        keys_B = sampling.row_keys(seed, prompts.number[question_B], sample_B)
        # Before the sum, which would overflow where a prompt sets no limit.
        room_B = jnp.minimum(prompts.room[question_B], plan.slots)
        rows = sampling.start(tokens_BC[:, 0], room_B + length_B - 1, keys_B, unused_B, plan.slots, suffix)
        rows = dataclasses.replace(rows, tokens=rows.tokens.at[:, :C].set(tokens_BC), length=length_B)
        rows = sampling.decode(
            params,
            prefix,
            rows,
            round_B,
            plan.policy,
            plan.sampler,
            plan.marks,
            max_new=plan.slots - 1,
            one_step=False,
            factors_2=factors_2,
        )
        return result(rows)

    return _by_groups(part, plan, prompts, tokens_BC, length_B, sample_B, round_B)


def score(
    params: Params, prompts: Prompts, tokens_BS: jax.Array, begin_B: jax.Array, length_B: jax.Array, *, plan: Plan
) -> jax.Array:
    """Score the steps of whole rows: `[B, R]`; entries past a row's steps mean nothing.

    A row's solution stands in slots `begin .. length - 1`; what stands before belongs to the prompt.
    """

    def part(prompts: Prompts, tokens_BS: jax.Array, begin_B: jax.Array, length_B: jax.Array) -> jax.Array:
        prefix = prefill(params, prompts, plan, verifier=True)
        last_B = jnp.repeat(prompts.read.last, plan.n)
        return score_rows(params, prefix, feed(tokens_BS, length_B, last_B, plan, begin_B), plan)

    return _by_groups(part, plan, prompts, tokens_BS, begin_B, length_B)


def score_rows(params: Params, prefix: cache.PrefixCache, fed: Fed, plan: Plan) -> jax.Array:
    """Score the steps of whole rows over cached prompts; see `score`."""
    assert plan.judge is not None
    assert plan.verifier is not None
    return plan.judge.score_steps(params, prefix, fed, plan.verifier, plan.max_steps)


def feed(
    tokens_BS: jax.Array, length_B: jax.Array, last_B: jax.Array, plan: Plan, begin_B: jax.Array | None = None
) -> Fed:
    """Return what the verifier reads of rows.

    Args:
        tokens_BS: Slot 0 is the last token of the policy's prompt.
        length_B: Slots set.
        last_B: Last tokens of the verifier's prompts.
        plan: Says what ends a step.
        begin_B: Slots at which solutions begin; 1 by default.
    """
    assert plan.judge is not None
    begin_B = jnp.ones_like(length_B) if begin_B is None else begin_B
    ends_BS = plan.marks.ends_of_rows(tokens_BS, begin_B, length_B)
    return plan.judge.feed(tokens_BS.at[:, 0].set(last_B), length_B, begin_B, ends_BS)


def likelihood(
    params: Params, prompts: Prompts, tokens_BS: jax.Array, begin_B: jax.Array, length_B: jax.Array, *, plan: Plan
) -> jax.Array:
    """Return the log-probability `[B, S]` under the policy of each token of whole rows, at temperature 1.

    Entries of slots before `begin`, and from `length` on, mean nothing.
    """
    del begin_B

    def part(prompts: Prompts, tokens_BS: jax.Array, length_B: jax.Array) -> jax.Array:
        prefix = prefill(params, prompts, plan)
        hidden_BSD = cache.read(params, tokens_BS, prefix, plan.policy, length_B)
        logprob_BS = heads.token_logprobs(params, hidden_BSD, jnp.roll(tokens_BS, -1, axis=1), plan.policy)
        return jnp.roll(logprob_BS, 1, axis=1)

    return _by_groups(part, plan, prompts, tokens_BS, length_B)
