"""REBASE and particle filtering: searches that share places out by weight, on scripts and by their statistics."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from ttcjax.search.contract import DeviceStrategy
from ttcjax.search.drive import _STRATEGY
from ttcjax.search.strategies.particles import Particles, drawn
from ttcjax.search.strategies.rebase import REBASE, places_for, shared_out
from ttcjax.testing import ScriptedOps
from ttcjax.testing.scripted import mix

QUESTIONS = 20
SCRIPTS = {"many ways": {}, "few ways": {"children": 3}, "one step": {"min_steps": 1, "max_steps": 1}}


def search(ops, strategy):
    """Search with 3 questions under way at once, so that places go on with others."""
    return jax.jit(lambda: ops.search(strategy, QUESTIONS))()


def reference(ops, strategy, parents_of):
    """Search question by question; `parents_of(question, round, scores, done)` says what each place continues."""
    n, paths, scores_of = strategy.n, [], []
    for q in range(QUESTIONS):
        rows, done = [(q, ())] * n, [False] * n
        for search_round in range(strategy.max_rounds):
            if all(done):
                break
            for i in (i for i in range(n) if not done[i]):
                path, scores = rows[i]
                path = mix(path, i % ops.children) if ops.children else mix(path, i, search_round)
                rows[i], done[i] = (path, (*scores, ops.score(path))), ops.ends(path, len(scores) + 1)
            worth = [ops.score(path) for path, _ in rows]
            parents = range(n) if all(done) else parents_of(q, search_round, worth, done)
            rows, done = [rows[p] for p in parents], [done[p] for p in parents]
        paths += [path for path, _ in rows]
        scores_of += [scores for _, scores in rows]
    return paths, scores_of


def assert_found(ops, strategy, parents_of):
    found = search(ops, strategy)
    paths, scores = reference(ops, strategy, parents_of)
    assert found.rows.path.tolist() == paths, "another row was continued, or at another place"
    for row, wanted in zip(np.asarray(found.step_scores), scores, strict=True):
        np.testing.assert_array_equal(row[: len(wanted)], np.array(wanted, np.float32))
        assert not row[len(wanted) :].any()


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize("strategy", [REBASE(16, 0.05), REBASE(7, 2.0), REBASE(8, max_rounds=2)], ids=lambda s: s.name)
def test_rebase_is_brute_force(strategy, script):
    def parents_of(q, search_round, scores, done):
        live = [i for i in range(strategy.n) if not done[i]]
        weights = {i: np.exp(np.float64(scores[i]) / strategy.score_temperature) for i in live}
        quota = {i: weights[i] / sum(weights.values()) * len(live) for i in live}
        places = {i: int(quota[i] + 1e-9) for i in live}  # a whole quota may be a hair less in binary
        for i in sorted(live, key=lambda i: (places[i] - quota[i], i))[: len(live) - sum(places.values())]:
            places[i] += 1
        dealt = [i for i in live for _ in range(places[i])]
        return [i if done[i] else dealt.pop(0) for i in range(strategy.n)]

    assert_found(ScriptedOps(3, strategy.n, **script), strategy, parents_of)


@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
@pytest.mark.parametrize(
    "strategy",
    [
        *(Particles(16, "multinomial"), Particles(7, score_temperature=0.3), Particles(8, max_rounds=2)),
    ],
    ids=lambda s: s.name,
)
def test_particle_filtering_is_brute_force(strategy, script):
    """The random numbers are the search's own; what becomes of them is worked out anew."""

    def parents_of(q, search_round, scores, done):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), q), _STRATEGY)
        numbers = np.asarray(strategy.uniform(jax.random.fold_in(key, 1 + search_round)[None]))[0]
        chances = np.clip(np.array(scores, np.float64), 1e-6, 1 - 1e-6)
        weights = (chances / (1 - chances)) ** (1 / strategy.score_temperature)
        upto = np.cumsum(weights) / weights.sum()
        return [next(i for i in range(strategy.n) if u < upto[i] or i == strategy.n - 1) for u in numbers.tolist()]

    assert_found(ScriptedOps(3, strategy.n, **script), strategy, parents_of)


def test_one_row_is_one_sample():
    for strategy in (REBASE(1, temperature=0.6), Particles(1, temperature=0.6)):
        assert strategy.plain().name == "best_of_n:n=1,select=weighted,temperature=0.6"


weights = arrays.arrays(np.float32, st.integers(1, 12), elements=st.floats(0, 1, width=32))


@given(weights, st.data())
@settings(max_examples=60, deadline=None)
def test_places_are_shared_out_by_weight(weight, data):
    """All live places and no other are dealt, each row within one of its quota, a better one never fewer."""
    live = data.draw(arrays.arrays(bool, len(weight)))
    [count] = np.asarray(shared_out(jnp.asarray(weight)[None], jnp.asarray(live)[None]))
    total = weight[live].sum(dtype=np.float64)
    assert count.sum() == live.sum()
    assert not count[~live].any()
    if total > 1e-6:
        quota = np.where(live, weight / total * live.sum(), 0)
        assert (np.abs(count - quota) < 1 + 1e-3).all()
    order = np.argsort(weight[live], kind="stable")
    assert (np.diff(count[live][order]) >= 0).all() or len(np.unique(weight[live])) < live.sum()
    parents = np.asarray(places_for(jnp.asarray(count)[None], jnp.asarray(live)[None]))
    assert np.bincount(parents, minlength=len(weight)).tolist() == (count + ~live).tolist()
    assert (parents[~live] == np.flatnonzero(~live)).all(), "a row that had ended lost its place"


def test_the_temperature_goes_from_the_best_alone_to_all_alike():
    ops = ScriptedOps(3, 8, min_steps=2, max_steps=2)
    for strategy in (REBASE(8, 1e-6, 1), Particles(8, score_temperature=1e-6, max_rounds=1)):
        paths = search(ops, strategy).rows.path.reshape(QUESTIONS, 8)
        assert all(len(set(row)) == 1 for row in paths.tolist()), "not the best row alone"
    for strategy in (REBASE(8, 1e4, 1), Particles(8, score_temperature=1e4, max_rounds=1)):
        paths = search(ops, strategy).rows.path.reshape(QUESTIONS, 8)
        assert all(len(set(row)) == 8 for row in paths.tolist()), "a row was dropped for its score"


@pytest.mark.parametrize("resample", ["systematic", "multinomial"])
def test_rows_are_drawn_in_proportion_to_their_weights(resample):
    """In the mean over 4,000 draws, within 5 standard errors of each of 6 rows: a false alarm in 300,000 runs."""
    weight = np.array([0.5, 0.0, 2.0, 0.1, 1.0, 0.4], np.float32)
    strategy, keys = Particles(6, resample), jax.random.split(jax.random.key(5), 4000)
    rows = np.asarray(drawn(jnp.asarray(weight)[None].repeat(4000, 0), strategy.uniform(keys)))
    count = np.stack([(rows == i).sum(axis=1) for i in range(6)], axis=1)
    due = 6 * weight / weight.sum()
    error = count.std(axis=0, ddof=1) / np.sqrt(4000)
    assert (np.abs(count.mean(axis=0) - due) <= 5 * error + 1e-9).all()
    if resample == "systematic":
        assert (np.abs(count - due) < 1).all(), "a row was drawn more than one off what it was due"


def test_a_question_draws_alike_alone_and_among_others():
    strategy = Particles(8)
    together = search(ScriptedOps(3, 8), strategy).rows.path.reshape(QUESTIONS, 8).tolist()
    for q in (0, 7, 19):
        alone = jax.jit(lambda q=q: ScriptedOps(1, 8, first=q).search(strategy))().rows.path.tolist()
        assert alone == together[q], "what is drawn depends on the other questions"


@dataclasses.dataclass(frozen=True)
class Lottery(DeviceStrategy):
    """Goes on for as many rounds as a question's own key says, and carries them beside what each place has seen."""

    n: int = 4
    max_rounds: int = 9
    temperature: float | None = None

    @property
    def name(self):
        return "lottery"

    def start(self, ops, state, key_Q):
        rounds_Q = jax.vmap(lambda key: jax.random.randint(key, (), 1, 4))(key_Q)
        return rounds_Q, jnp.zeros((ops.questions * self.n,), jnp.int32)

    def round(self, ops, state, carry, key_Q, round_Q):
        left_Q, seen_B = carry
        state, _ = ops.score_step(ops.extend_step(state, round_Q))
        # A carry that was not begun anew would still hold the rounds of the question before.
        wrong_Q = seen_B.reshape((ops.questions, self.n)).max(axis=1) != round_Q
        return state, (left_Q - 1, seen_B + 1), (left_Q <= 1) | wrong_Q


def test_a_carry_begins_anew_with_every_question():
    """20 questions in 3 places: each runs the rounds of its own key, which is no key of a round."""
    found = search(ScriptedOps(3, 4, min_steps=6, max_steps=6), Lottery())
    steps = found.rows.steps.reshape(QUESTIONS, 4)
    due, keys = [], set()
    for q in range(QUESTIONS):
        key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), q), _STRATEGY)
        due.append(int(jax.random.randint(jax.random.fold_in(key, 0), (), 1, 4)))
        keys |= {tuple(jax.random.key_data(jax.random.fold_in(key, r)).tolist()) for r in range(5)}
    assert steps.tolist() == [[rounds] * 4 for rounds in due]
    assert len(set(due)) == 3
    assert len(keys) == 5 * QUESTIONS
