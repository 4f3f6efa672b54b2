"""Search on real models: scores, token counts and results that depend on nothing but seed and question."""

import dataclasses

import jax.numpy as jnp
import pytest

from tests.searching import candidates
from ttcjax.config import SamplerConfig
from ttcjax.engine.compiled import Programs
from ttcjax.engine.engine import Engine
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.progress import CompileClock
from ttcjax.search.ops import EngineOps
from ttcjax.search.strategies.beam import Beam
from ttcjax.search.strategies.best_of_n import BestOfN
from ttcjax.search.strategies.dvts import DVTS
from ttcjax.search.strategies.lookahead import Lookahead
from ttcjax.search.strategies.particles import Particles
from ttcjax.search.strategies.rebase import REBASE

BEAM, AHEAD, SEED = Beam(4, 2), Lookahead(4, 2, k=2), 3
EACH = (BEAM, AHEAD, DVTS(4, 2), REBASE(4), Particles(4))


@pytest.fixture(scope="module", params=EACH, ids=lambda strategy: strategy.name)
def strategy(request):
    return request.param


@pytest.fixture(scope="module")
def found(engine, prompts, strategy):
    return candidates(engine, strategy, prompts, SEED)


def flat(rows):
    return [s for row in rows for s in row]


def assert_same(tiny, got, want):
    """Equal but for rounding, in which batches of other shapes differ."""
    for g, w in zip(flat(got), flat(want), strict=True):
        assert (g.tokens, g.text, g.finished) == (w.tokens, w.text, w.finished)
        for count in ("tokens_sampled", "tokens_verified", "tokens_lookahead"):
            assert getattr(g, count) == getattr(w, count), count
        assert g.step_scores == pytest.approx(w.step_scores, rel=0, abs=tiny.errors.score)
        assert abs(g.logprob - w.logprob) <= tiny.errors.solution


def test_the_search_drops_and_continues_rows(tiny, prompts, found):
    """Were no candidate to share a prefix with another, the other tests would say little of forks."""
    ends = tiny.step_ends
    shared = [
        len({row.tokens[0] for row in rows}) < len(rows) and len({row.tokens for row in rows}) > 1 for rows in found
    ]
    assert sum(shared) >= len(prompts) // 2
    assert sum(sum(t in ends for t in s.tokens) > 2 for s in flat(found)) >= 6
    assert 0 < sum(s.finished for s in flat(found)) < len(flat(found))
    assert max(s.tokens_sampled - len(s.tokens) for s in flat(found)) > 0


def test_a_search_says_which_question_met_logits_that_are_not_finite(engine, prompts, strategy, monkeypatch):
    token = next(t for t in prompts[3].tokens if sum(t in p.tokens for p in prompts) == 1)
    scale = jnp.full_like(engine.policy["final_norm"], jnp.nan)
    for broken in ({"final_norm": scale}, {"embed": engine.policy["embed"].at[token].set(jnp.nan)}):
        monkeypatch.setattr(engine, "policy", {**engine.policy, **broken})
        with pytest.raises(UserError, match=r"policy's logits are not finite at question procmath.*: .*checkpoint"):
            candidates(engine, strategy, prompts, SEED)


def test_rollouts_that_meet_bad_logits_are_told_of(engine, prompts, monkeypatch):
    """With a rollout's row dropped and its cache written over, the place still remembers."""
    ops = EngineOps.lookahead

    def broken(self, state, k):
        back, scores = ops(
            dataclasses.replace(self, policy={**self.policy, "final_norm": jnp.nan * self.policy["final_norm"]}),
            state,
            k,
        )
        return back, jnp.where(jnp.isnan(scores), 0.0, scores)

    monkeypatch.setattr(EngineOps, "lookahead", broken)
    monkeypatch.setattr(engine.scheduler, "programs", Programs(engine.mesh))
    with pytest.raises(UserError, match="policy's logits are not finite"):
        candidates(engine, AHEAD, prompts, SEED)


def test_incremental_scores_equal_those_of_whole_solutions(tiny, engine, prompts, found):
    for s, whole in zip(flat(found), flat(engine.score(prompts, found)), strict=True):
        assert s.step_scores == pytest.approx(whole.step_scores, rel=0, abs=tiny.errors.score)


def test_places_of_ended_rows_go_on_with_others(tiny, engine, prompts, found, strategy):
    """What is read in a place that had ended is what whole solutions score; and some do end and give way."""
    if not isinstance(strategy, Beam):
        return
    competing = candidates(engine, dataclasses.replace(strategy, ended="compete"), prompts, SEED)
    for s, whole in zip(flat(competing), flat(engine.score(prompts, competing)), strict=True):
        assert s.step_scores == pytest.approx(whole.step_scores, rel=0, abs=tiny.errors.score)
        assert s.tokens_verified == s.tokens_sampled + 1
    assert [s.tokens for s in flat(competing)] != [s.tokens for s in flat(found)], "no ended row gave way"


def test_a_verifier_without_likelihoods_scores_alike(tiny, prompts):
    engine = tiny.engine(verifier=tiny.plain_verifier)
    found = candidates(engine, BEAM, prompts, SEED)
    for s, whole in zip(flat(found), flat(engine.score(prompts, found)), strict=True):
        assert s.step_scores == pytest.approx(whole.step_scores, rel=0, abs=tiny.errors.score)


def test_logprobs_follow_their_rows(engine, tiny, prompts, found):
    """A candidate's log-probability is that of its own tokens, wherever they were drawn."""
    for prompt, rows in zip(prompts, found, strict=True):
        by_tokens = {}
        for s in rows:
            assert abs(s.logprob - by_tokens.setdefault(s.tokens, s.logprob)) <= tiny.errors.solution, prompt.id
            assert s.text == tiny.tokenizer.decode(s.tokens)


@pytest.mark.parametrize(("strategy", "groups"), [(BEAM, 1), (AHEAD, 7)], indirect=["strategy"], ids=["beam", "ahead"])
def test_results_do_not_depend_on_the_batch(tiny, prompts, strategy, found, groups):
    """Groups of rows that have ended a question go on with the next, while others are in the midst of theirs."""
    rows = groups * strategy.n
    assert_same(tiny, candidates(tiny.engine(rows=rows), strategy, prompts, SEED), found)


@pytest.mark.parametrize("strategy", [BEAM, AHEAD], indirect=True, ids=["beam", "ahead"])
def test_results_do_not_depend_on_devices_nor_order(tiny, prompts, strategy, found):
    assert_same(tiny, candidates(tiny.engine(devices=8), strategy, prompts[::-1], SEED)[::-1], found)


def test_the_seed_changes_results(engine, prompts, strategy, found):
    other = candidates(engine, strategy, prompts, SEED + 1)
    assert sum(a.tokens == b.tokens for a, b in zip(flat(other), flat(found), strict=True)) <= 4


def test_best_of_n_is_sampling_and_scoring(tiny, engine, prompts):
    got = candidates(engine, BestOfN(4), prompts, SEED)
    want = engine.score(prompts, engine.sample(prompts, 4, SEED))
    assert_same(tiny, got, want)
    for s in flat(got):
        assert s.tokens_sampled == len(s.tokens)


def test_a_beam_as_small_as_its_width_is_best_of_n(tiny, engine, prompts):
    assert_same(tiny, candidates(engine, Beam(4, 1), prompts, SEED), candidates(engine, BestOfN(4), prompts, SEED))


def test_token_counts_are_those_of_the_places(engine, prompts, found):
    """Every token drawn counts at its place, kept or dropped; the verifier reads it once, and the prompt's last.
    So what the verifier reads grows with the rounds as what is drawn does, and not with their square."""
    for rows in found:
        prefixes = {s.tokens[:end] for s in rows for end in range(1, len(s.tokens) + 1)}
        drawn = sum(s.tokens_sampled for s in rows)
        assert drawn >= len(prefixes), "a candidate holds tokens that no place has drawn"
        # A place that is given a shorter row draws on from there: a little more than rows are long, not many times it.
        assert drawn <= 1.5 * len(rows) * engine.sampler.max_tokens
        for s in rows:
            assert s.tokens_verified == s.tokens_sampled + s.tokens_lookahead + 1


def test_long_steps_are_cut_and_scored_at_their_end(tiny, prompts):
    """Steps of more than `max_step_tokens` tokens go through in several rounds and still have one score each."""
    engine = tiny.engine(max_step_tokens=2)
    found = candidates(engine, AHEAD, prompts, SEED)
    ends = tiny.step_ends
    assert any(not set(s.tokens[:3]) & set(ends) and s.step_scores for s in flat(found)), "no long step to test"
    for s, whole in zip(flat(found), flat(engine.score(prompts, found)), strict=True):
        assert len(s.step_scores) == sum(t in ends for t in s.tokens)
        assert s.step_scores == pytest.approx(whole.step_scores, rel=0, abs=tiny.errors.score)


def test_rounds_are_limited(tiny, engine, prompts):
    rounds, longest = 2, engine.sampler.max_step_tokens
    for s in flat(candidates(engine, dataclasses.replace(AHEAD, max_rounds=rounds), prompts, SEED)):
        assert s.tokens_sampled <= rounds * longest, "sampled after the last round"
        assert s.tokens_lookahead <= rounds * AHEAD.k * longest, "rolled out after the last round"
        assert sum(t in tiny.step_ends for t in s.tokens) <= rounds


def test_nothing_compiles_once_the_shapes_are_warm(tiny, engine, prompts, strategy, found):
    """Over budgets, seeds and questions of other lengths."""
    budgets = [dataclasses.replace(strategy, n=n) for n in (4, 8, 16)]
    others = tiny.prompts(engine, start=20, count=len(prompts))
    assert len({len(prompt.tokens) for prompt in (*prompts, *others)}) > 4
    for larger in budgets[1:]:
        candidates(engine, larger, prompts, SEED)
    with CompileClock() as clock:
        for again in budgets:
            candidates(engine, again, others, SEED + 1)
    assert clock.compilations == 0


def test_what_cannot_be_searched_is_refused(tiny, engine, prompts):
    with pytest.raises(UserError, match="shorten the prompt"):
        candidates(engine, BEAM, [engine.encode_prompt("long", "7" * 80)], SEED)
    with pytest.raises(UserError, match="needs a verifier"):
        candidates(Engine(tiny.policy, tiny.tokenizer, SamplerConfig()), BEAM, prompts, SEED)


def test_a_search_draws_at_its_own_temperature_and_no_program_is_compiled_for_it(tiny, prompts):
    """`temperature=0.6` on an engine of 1 is what an engine of 0.6 does; one program of a strategy serves all."""
    engine, cold = tiny.engine(), tiny.engine(temperature=0.6)
    for strategy in (*EACH, BestOfN(4)):
        at_one = candidates(engine, strategy, prompts, SEED)
        compiled = len(engine.compilations)
        found = candidates(engine, dataclasses.replace(strategy, temperature=0.6), prompts, SEED)
        assert len(engine.compilations) == compiled, f"{strategy.name} was compiled anew for a temperature"
        assert_same(tiny, found, candidates(cold, strategy, prompts, SEED))
        assert [s.tokens for s in found[0]] != [s.tokens for s in at_one[0]]
