"""Searches that go back: what was saved and is loaded goes on as if it had never been left, and a best-first search."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.searching import candidates
from ttcjax.config import SamplerConfig
from ttcjax.engine.capacity import Capacity
from ttcjax.runtime.errors import UserError
from ttcjax.search.contract import DeviceStrategy, going_on
from ttcjax.search.ops import search
from ttcjax.search.strategies.beam import Beam, select_parents
from ttcjax.testing import ScriptedOps
from ttcjax.testing.scripted import mix

SEED = 3


@dataclasses.dataclass(frozen=True)
class Detour(DeviceStrategy):
    """The beam search whose rows are kept aside in every round, go astray, and come back by the store, not by forks."""

    n: int
    width: int
    away: int = 2
    max_rounds: int = 40
    temperature: float | None = None

    @property
    def nodes(self):
        return self.n + 1

    @property
    def name(self):
        return f"detour:n={self.n},width={self.width},away={self.away}"

    def round(self, ops: Any, state, carry, key_Q, round_Q):
        state, score_B = ops.score_step(ops.extend_step(state, round_Q))
        live_QN = ~ops.done(state).reshape((-1, self.n))
        parent_B = select_parents(score_B.reshape((-1, self.n)), live_QN, self.width) % self.n
        place_B = jnp.tile(jnp.arange(self.n, dtype=jnp.int32), ops.questions)
        state = ops.save(state, self.n - place_B)
        for step in range(self.away):
            state, _ = ops.score_step(ops.extend_step(state, round_Q + 1000 + step))
            # Slot 0 is nobody's, -1 no slot, and what is too high is none either.
            state = ops.save(state, jnp.where(place_B == 0, 0, jnp.where(place_B == 1, -1, self.nodes)))
        return ops.load(state, self.n - parent_B), carry, going_on(ops)


@dataclasses.dataclass(frozen=True)
class BestFirst(DeviceStrategy):
    """Expand the best open rows, those of earlier rounds too, `width` ways; the best others stay in the store.

    Of L rows that have not ended the places go to the best ceil(L / width) of them and of the store. A row that has
    ended is a candidate and keeps its place.
    """

    n: int
    width: int = 4
    nodes: int = 8
    max_rounds: int = 12
    temperature: float | None = None

    @property
    def name(self):
        return f"best_first:n={self.n},width={self.width},nodes={self.nodes}"

    def start(self, ops: Any, state, key_Q):
        return jnp.full((ops.questions, self.nodes), -jnp.inf)  # Scores of what the slots hold.

    def round(self, ops: Any, state, carry, key_Q, round_Q):
        N, K = self.n, self.nodes
        state, score_B = ops.score_step(ops.extend_step(state, round_Q))
        live_QN = ~ops.done(state).reshape((-1, N))
        row_QN = jnp.where(live_QN, score_B.reshape((-1, N)), -jnp.inf)
        ranked_QM = jnp.argsort(-jnp.concatenate([row_QN, carry], axis=1), axis=1, stable=True)
        count_Q1 = -(-live_QN.sum(axis=1, keepdims=True) // self.width)
        rank_QM = jnp.argsort(ranked_QM, axis=1)
        chosen_QM = rank_QM < count_Q1
        # The best of the rows that are left against the worst of the slots that are not expanded now.
        left_QN = jnp.where(chosen_QM[:, :N], -jnp.inf, row_QN)
        kept_QK = jnp.where(chosen_QM[:, N:], jnp.inf, carry)
        best_QN, worst_QK = jnp.argsort(-left_QN, axis=1, stable=True), jnp.argsort(kept_QK, axis=1, stable=True)
        slot_QN, pairs = jnp.full(left_QN.shape, -1, jnp.int32), min(N, K)
        for i in range(pairs):
            row_Q1, slot_Q1 = best_QN[:, i : i + 1], worst_QK[:, i : i + 1]
            better_Q1 = jnp.take_along_axis(left_QN, row_Q1, axis=1) > jnp.take_along_axis(kept_QK, slot_Q1, axis=1)
            here_QN = (jnp.arange(N)[None] == row_Q1) & better_Q1
            slot_QN = jnp.where(here_QN, slot_Q1, slot_QN)
            there_QK = (jnp.arange(K)[None] == slot_Q1) & better_Q1
            kept_QK = jnp.where(there_QK, jnp.take_along_axis(left_QN, row_Q1, axis=1), kept_QK)
        state = ops.save(state, slot_QN.reshape(-1).astype(jnp.int32))
        place_QN = jnp.maximum(jnp.cumsum(live_QN, axis=1) - 1, 0) // self.width
        source_QN = jnp.take_along_axis(ranked_QM, jnp.minimum(place_QN, jnp.maximum(count_Q1 - 1, 0)), axis=1)
        source_QN = jnp.where(live_QN, source_QN, jnp.arange(N)[None])
        parent_QN = jnp.where(source_QN < N, source_QN, jnp.arange(N)[None])
        state = ops.fork(state, (parent_QN + jnp.arange(ops.questions)[:, None] * N).reshape(-1))
        state = ops.load(state, jnp.where(source_QN < N, -1, source_QN - N).reshape(-1).astype(jnp.int32))
        return state, jnp.where(chosen_QM[:, N:], -jnp.inf, kept_QK), going_on(ops)


def best_first_by_hand(ops, strategy, questions):
    """Search with lists; return the final paths, and how many rows were taken up from earlier rounds."""
    finals, back = [], 0
    for q in range(questions):
        rows, done, store = [(q, ())] * strategy.n, [False] * strategy.n, []
        for search_round in range(strategy.max_rounds):
            if all(done):
                break
            for i in (i for i in range(strategy.n) if not done[i]):
                path, scores = rows[i]
                path = mix(path, i, search_round)
                rows[i], done[i] = (path, (*scores, ops.score(path))), ops.ends(path, len(scores) + 1)
            live = [i for i in range(strategy.n) if not done[i]]
            ranked = sorted([*(rows[i] for i in live), *store], key=lambda row: -row[1][-1])
            chosen, left = ranked[: -(-len(live) // strategy.width)], ranked[-(-len(live) // strategy.width) :]
            taken = [row for row in chosen if row in store]
            back += len(taken)
            store = left[: strategy.nodes - len(taken)]
            for place, i in enumerate(live):
                rows[i] = chosen[place // strategy.width]
        finals += [path for path, _ in rows]
    return finals, back


@pytest.mark.parametrize("nodes", [1, 3, 8])
def test_a_best_first_search_is_brute_force(nodes):
    ops, strategy = ScriptedOps(3, 8, min_steps=3, max_steps=7), BestFirst(8, 4, nodes)
    found = jax.jit(lambda: ops.search(strategy, 20))()
    finals, back = best_first_by_hand(ops, strategy, 20)
    assert found.rows.path.tolist() == finals
    assert back > 20, "hardly a row was taken up again: the test says little of the store"
    beam = jax.jit(lambda: ops.search(Beam(8, 4), 20))()
    assert beam.rows.path.tolist() != finals


@pytest.mark.parametrize("width", [2, 4])
def test_what_was_kept_aside_on_a_script_goes_on_as_if_never_left(width):
    ops = ScriptedOps(3, 8)
    kept, straight = (jax.jit(lambda s=s: ops.search(s, 20))() for s in (Detour(8, width), Beam(8, width)))
    for field in ("path", "steps", "done", "finished", "unread"):
        np.testing.assert_array_equal(getattr(kept.rows, field), getattr(straight.rows, field), field)
    np.testing.assert_array_equal(kept.step_scores, straight.step_scores)
    assert int(kept.rows.drawn.sum()) > int(straight.rows.drawn.sum()), "no row went astray"


@pytest.fixture(scope="module")
def gone(tiny):
    """What searches of detours find, by devices."""
    return {
        devices: candidates(tiny.engine(devices=devices), Detour(4, 2, 1), tiny.prompts(tiny.engine()), SEED)
        for devices in (1, 3)
    }


@pytest.mark.skipif(jax.device_count() < 3, reason="needs three devices")
def test_rows_of_models_go_on_bit_for_bit_as_if_never_left(tiny, gone):
    """Tokens, log-probabilities and the verifier's scores; only what was drawn and read on the way counts beside."""
    for devices, found in gone.items():
        want = candidates(tiny.engine(devices=devices), Beam(4, 2), tiny.prompts(tiny.engine()), SEED)
        for got, straight in zip((s for g in found for s in g), (s for g in want for s in g), strict=True):
            counted = {"tokens_sampled": got.tokens_sampled, "tokens_verified": got.tokens_verified}
            assert dataclasses.replace(straight, **counted) == got, f"on {devices} devices"
        drawn = [sum(s.tokens_sampled for g in some for s in g) for some in (found, want)]
        assert drawn[0] > 1.2 * drawn[1], "no row went astray"
    assert gone[3] == gone[1]


@pytest.mark.skipif(jax.device_count() < 3, reason="needs three devices")
def test_rows_that_were_taken_up_again_have_their_own_caches(tiny):
    """Scores of a search that goes back are those of its whole solutions, on one device and on three."""
    engine, strategy = tiny.engine(), BestFirst(4, 4, nodes=3, max_rounds=8)
    prompts = tiny.prompts(engine)
    found = candidates(engine, strategy, prompts, SEED)
    for group, whole in zip(found, engine.score(prompts, found), strict=True):
        for s, w in zip(group, whole, strict=True):
            assert s.step_scores == pytest.approx(w.step_scores, rel=0, abs=tiny.errors.score)
    assert candidates(tiny.engine(devices=3), strategy, prompts, SEED) == found


def test_the_store_is_planned_for(tiny):
    """A device on which rows alone just fit holds fewer of them beside their stores."""
    model, judge = tiny.policy.config, tiny.verifier.judge
    capacity = Capacity(SamplerConfig(rows=64, waves=1), model, tiny.verifier.config, judge, 0, 1 << 40)
    plain, kept = (capacity.fit(64, 4, 128, forks=True, nodes=nodes).memory.suffixes for nodes in (0, 8))
    assert kept == 2 * plain, "16 questions of 4 rows, twice while they fork, and of 8 slots"


def test_rounds_of_a_search_that_goes_back_are_not_written_down(engine, prompts):
    with pytest.raises(UserError, match=r"best_first:.* goes back to rows that it kept"):
        search(engine, BestFirst(4), prompts, SEED, traced=True)
