"""Strategies on real models: one compiled program searches many questions at once."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import struct

from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.engine import programs, queue
from ttcjax.engine import rows as sampling
from ttcjax.engine.engine import Engine, Prompt, Search
from ttcjax.engine.rows import Rows
from ttcjax.model import cache
from ttcjax.model.params import Params
from ttcjax.runtime.errors import UserError
from ttcjax.search import drive, nodes
from ttcjax.search.contract import DeviceStrategy, HostStrategy, Strategy
from ttcjax.search.session import Outcome, Round, Session
from ttcjax.search.strategies.best_of_n import BestOfN
from ttcjax.verify.verifier import Fed, Reading, Verifier


@struct.dataclass
class SearchState:
    """Rows, and what the verifier has read of each."""

    rows: Rows
    reading: Reading
    last: jax.Array
    """`[B]` int32: last token of the verifier's prompt."""
    verified: jax.Array
    """`[B]` int32: tokens the verifier has read at this place of the batch, dropped ones included."""
    ahead: jax.Array
    """`[B]` int32: tokens of rollouts drawn at this place of the batch, not among `rows.sampled`."""
    policy_prefix: cache.PrefixCache
    """Of the questions under way."""
    verifier_prefix: cache.PrefixCache
    store: Any = None
    """Saved rows, see `ttcjax.search.nodes`."""

    @property
    def of_row(self) -> tuple[dict[str, Any], Reading]:
        """Arrays that go where a row goes."""
        return self.rows.of_row, self.reading


@struct.dataclass
class SearchedRows:
    """Fields of B rows that are copied to the host."""

    sampled: programs.Sampled
    verified: jax.Array
    ahead: jax.Array


@dataclass(frozen=True)
class EngineOps:
    """A policy and a verifier as an engine of `ttcjax.search.drive`; lives inside one traced program."""

    policy: Params
    verifier: Params
    prompts: programs.Prompts
    policy_prefixes: cache.PrefixCache
    """Of all prompts."""
    verifier_prefixes: cache.PrefixCache
    seed: jax.Array
    plan: programs.Plan
    factors_2: jax.Array | None = None
    """Of the temperature; see `draw.factors`."""
    nodes: int = 0
    """Slots of a question for saved rows."""

    @property
    def n(self) -> int:
        return self.plan.n

    @property
    def questions(self) -> int:
        return self.plan.groups

    @property
    def max_steps(self) -> int:
        return self.plan.max_steps

    @property
    def _judge(self) -> tuple[Verifier, ModelConfig]:
        assert self.plan.judge is not None
        assert self.plan.verifier is not None
        return self.plan.judge, self.plan.verifier

    def idle(self) -> SearchState:
        judge, config = self._judge
        first_Q, none_B = jnp.zeros((self.questions,), jnp.int32), jnp.zeros((self.plan.rows,), jnp.int32)
        state = SearchState(
            rows=programs.idle_rows(self.plan),
            reading=judge.start(config, self.plan.rows, self.plan.slots),
            last=none_B,
            verified=none_B,
            ahead=none_B,
            policy_prefix=cache.take(self.policy_prefixes, first_Q),
            verifier_prefix=cache.take(self.verifier_prefixes, first_Q),
        )
        return dataclasses.replace(state, store=nodes.empty(state.of_row, self.n, self.nodes))

    def begin(self, state: SearchState, fresh_B: jax.Array, line: queue.Queue, changed: jax.Array) -> SearchState:
        policy, verifier, last_Q = self.policy_prefixes, self.verifier_prefixes, self.prompts.read.last
        question_B = jnp.minimum(line.request_B // self.plan.n, last_Q.shape[0] - 1)
        return SearchState(
            rows=programs.begin(state.rows, fresh_B, self.prompts, line.request_B, self.seed, self.plan),
            reading=self._judge[0].begin(state.reading, fresh_B),
            last=jnp.where(fresh_B, last_Q[question_B], state.last),
            verified=jnp.where(fresh_B, 0, state.verified),
            ahead=jnp.where(fresh_B, 0, state.ahead),
            policy_prefix=cache.switch(state.policy_prefix, policy, line.question_G, changed),
            verifier_prefix=cache.switch(state.verifier_prefix, verifier, line.question_G, changed),
            store=state.store,
        )

    def question_keys(self, question_Q: jax.Array) -> jax.Array:
        return sampling.question_keys(self.seed, self.prompts.number[question_Q])

    def end(self, state: SearchState, over_B: jax.Array) -> SearchState:
        return dataclasses.replace(state, rows=dataclasses.replace(state.rows, done=state.rows.done | over_B))

    def last_step(self, before: SearchState, after: SearchState) -> jax.Array:
        slot_BT = before.rows.length[:, None] + jnp.arange(self.plan.sampler.max_step_tokens)[None]
        token_BT = jnp.take_along_axis(after.rows.tokens, jnp.minimum(slot_BT, self.plan.slots - 1), axis=1)
        return jnp.where(slot_BT < after.rows.length[:, None], token_BT, -1)

    def result(self, state: SearchState) -> SearchedRows:
        return SearchedRows(programs.result(state.rows), state.verified, state.ahead)

    def done(self, state: SearchState) -> jax.Array:
        return state.rows.done

    def steps(self, state: SearchState) -> jax.Array:
        return state.rows.steps

    def _decode(
        self, state: SearchState, rows: Rows, round_Q: jax.Array, sampler: SamplerConfig, *, one_step: bool
    ) -> Rows:
        return sampling.decode(
            self.policy,
            state.policy_prefix,
            rows,
            jnp.repeat(round_Q, self.plan.n),
            self.plan.policy,
            sampler,
            self.plan.marks,
            max_new=sampler.max_step_tokens if one_step else self.plan.slots - 1,
            one_step=one_step,
            factors_2=self.factors_2,
        )

    @property
    def _no_round(self) -> jax.Array:
        return jnp.zeros((self.questions,), jnp.int32)

    def extend_step(self, state: SearchState, round_Q: jax.Array) -> SearchState:
        rows = self._decode(state, state.rows, round_Q, self.plan.sampler, one_step=True)
        return dataclasses.replace(state, rows=rows)

    def extend_full(self, state: SearchState) -> SearchState:
        rows = self._decode(state, state.rows, self._no_round, self.plan.sampler, one_step=False)
        return dataclasses.replace(state, rows=rows)

    def score_step(self, state: SearchState) -> tuple[SearchState, jax.Array]:
        (judge, config), fed = self._judge, self._fed(state)
        reading = judge.read(
            self.verifier, state.verifier_prefix, state.reading, fed, config, self.plan.sampler.verifier_chunk
        )
        verified = state.verified + fed.length - state.reading.read
        score_B = judge.score(self.verifier, reading, config)
        return dataclasses.replace(state, reading=reading, verified=verified), score_B

    def _fed(self, state: SearchState) -> Fed:
        """Return what the verifier reads of the rows, all of it."""
        return programs.feed(state.rows.tokens, state.rows.length, state.last, self.plan)

    def lookahead(self, state: SearchState, k: int) -> tuple[SearchState, jax.Array]:
        greedy = dataclasses.replace(self.plan.sampler, temperature=0.0)

        def step(_: jax.Array, rows: Rows) -> Rows:
            return self._decode(state, rows, self._no_round, greedy, one_step=True)

        rows = jax.lax.fori_loop(0, k, step, state.rows)
        there, score_B = self.score_step(dataclasses.replace(state, rows=rows))
        # Rows and readings go back to where they stood, but for their caches: what a rollout wrote there lies at and
        # past the ends of rows, where every slot is written again before it is read. So no cache is kept aside.
        back = dataclasses.replace(
            state,
            rows=dataclasses.replace(state.rows, cache=there.rows.cache, broken=there.rows.broken),
            reading=dataclasses.replace(state.reading, cache=there.reading.cache),
            verified=there.verified,
            ahead=state.ahead + rows.sampled - state.rows.sampled,
        )
        return back, score_B

    def score_all(self, state: SearchState) -> tuple[SearchState, jax.Array]:
        fed = self._fed(state)
        scores = programs.score_rows(self.verifier, state.verifier_prefix, fed, self.plan)
        return dataclasses.replace(state, verified=state.verified + fed.length), scores

    def fork(self, state: SearchState, parent_B: jax.Array) -> SearchState:
        return dataclasses.replace(state, rows=state.rows.fork(parent_B), reading=state.reading.fork(parent_B))

    def save(self, state: SearchState, slot_B: jax.Array) -> SearchState:
        store = nodes.save(state.store, state.of_row, slot_B, self.n, self.nodes)
        return dataclasses.replace(state, store=store)

    def load(self, state: SearchState, slot_B: jax.Array) -> SearchState:
        rows, reading = nodes.load(state.store, state.of_row, slot_B, self.n, self.nodes)
        return dataclasses.replace(state, rows=dataclasses.replace(state.rows, **rows), reading=reading)


def program(
    policy: Params,
    verifier: Params,
    prompts: programs.Prompts,
    seed: jax.Array,
    factors_2: jax.Array | None = None,
    *,
    plan: programs.Plan,
    strategy: DeviceStrategy,
    traced: bool = False,
) -> drive.Found:
    """Run a strategy for every prompt; what is traced into one compiled program.

    The temperature is not the strategy's but what `factors_2` says (see `draw.factors`), by default the plan's.
    """
    policy_prefixes = programs.prefill(policy, prompts, plan)
    verifier_prefixes = programs.prefill(verifier, prompts, plan, verifier=True)
    ops = EngineOps(
        policy, verifier, prompts, policy_prefixes, verifier_prefixes, seed, plan, factors_2, strategy.nodes
    )
    return drive.drive(strategy, ops, prompts.count, traced=traced)


def run(strategy: Strategy, session: Session, seed: int) -> list[Outcome]:
    """Run any strategy on the questions of a session.

    Raises:
        UserError: As `search`, or the strategy asks for a model that the session does not have.
    """
    plain = strategy.plain()
    if isinstance(plain, HostStrategy):
        found = plain.run(session, seed)
    else:
        found = search(session.engine, plain, session.prompts, seed)
    return [session.judged(outcome, strategy) for outcome in found]


def search(
    engine: Engine, strategy: Strategy, prompts: Sequence[Prompt], seed: int, *, traced: bool = False
) -> list[Outcome]:
    """Run a strategy on every prompt.

    Args:
        engine: Has a verifier.
        strategy: Any that runs on the device.
        prompts: Of the questions.
        seed: Root of all random numbers.
        traced: Write down every round; best-of-N has none.

    Raises:
        UserError: The strategy is one of the host, goes back and is to be traced, the engine has no verifier, a prompt
            leaves no room for a solution, or a model's numbers are not finite.
    """
    plain = strategy.plain()
    if not isinstance(plain, DeviceStrategy):
        raise UserError(f"{strategy.name} is run on the host: use ttcjax.search.ops.run, which takes a session")
    if traced and plain.nodes:
        raise UserError(f"{strategy.name} goes back to rows that it kept: its rounds cannot be written down (traced)")
    temperature = plain.temperature
    # The program is the same at every temperature.
    plain = dataclasses.replace(plain, temperature=None)  # type: ignore[type-var]
    traced = traced and not isinstance(plain, BestOfN)
    chunk = engine.sampler.verifier_chunk
    wanted = Search(
        functools.partial(program, strategy=plain, traced=traced),
        key=("search", plain, *["traced"] * traced),
        results=lambda out: (out.rows.sampled, out.step_scores, out.rows.verified),
        # Best-of-N is read whole at its end, other searches in chunks.
        read_together=chunk if plain.max_rounds > 1 else min(engine.sampler.max_tokens + 1, cache.READ_TOGETHER),
        nodes=plain.nodes,
    )
    found: dict[int, Outcome] = {}
    for out, held in engine.search(wanted, prompts, plain.n, seed, temperature=temperature):
        ahead = np.asarray(out.rows.ahead)
        for i, rows, solutions in held:
            candidates = [
                dataclasses.replace(s, tokens_lookahead=int(ahead[row])) for row, s in zip(rows, solutions, strict=True)
            ]
            rounds = () if out.trace is None else _rounds(engine, out.trace, rows)
            found[i] = Outcome(candidates, strategy.cost(), rounds)
    return [found[i] for i in range(len(prompts))]


def _rounds(engine: Engine, trace: drive.Trace, rows: range) -> tuple[Round, ...]:
    """Return the rounds of one question."""
    parent, score, step = (np.asarray(leaf[rows.start : rows.stop]) for leaf in (trace.parent, trace.score, trace.step))
    ran = int((parent[0] >= 0).sum())
    return tuple(
        Round(
            parents=tuple(parent[:, r].tolist()),
            scores=tuple(score[:, r].tolist()),
            steps=tuple(engine.tokenizer.decode_batch([row[row >= 0].tolist() for row in step[:, r]])),
        )
        for r in range(ran)
    )
