"""The engine on real models: what it samples and scores, whatever the batches, order and devices."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from etils import epath

from ttcjax.config import SamplerConfig, to_dict
from ttcjax.engine import rows as state
from ttcjax.engine.batching import bucket
from ttcjax.engine.engine import Engine
from ttcjax.engine.loading import load_model
from ttcjax.engine.requests import Begun, check_tokenizer
from ttcjax.model import cache, heads, transformer
from ttcjax.runtime.checkpoint import save_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.progress import CompileClock
from ttcjax.runtime.stage import Inputs

N, SEED = 4, 3


@pytest.fixture(scope="module")
def samples(engine, prompts):
    return engine.sample(prompts, N, SEED)


def flat(rows):
    return [s for row in rows for s in row]


def full_pass(model, prompts, rows, fn):
    """Return what `fn(params, hidden, tokens, config)` says of prompt and solution, one uncached pass for all rows."""
    tokens = np.zeros((len(rows), model.config.max_seq_len), np.int32)
    for b, (prompt, row) in enumerate(zip(prompts, rows, strict=True)):
        both = prompt.tokens + row
        tokens[b, : len(both)] = both
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)

    @jax.jit
    def run(params, tokens):
        hidden = transformer.forward(params, tokens, jnp.asarray(positions), model.config)
        return fn(params, hidden, tokens, model.config)

    return np.asarray(run(model.params, jnp.asarray(tokens)))


def assert_same(tiny, got, want):
    """Equal token for token; sums of floats may round otherwise in another batch.

    Tokens too would differ where a random number falls within rounding of the end of a token's share: for all draws
    of this file together a chance below 1%, of each kind of machine.
    """
    for g, w in zip(flat(got), flat(want), strict=True):
        assert (g.tokens, g.finished, g.text, g.tokens_sampled) == (w.tokens, w.finished, w.text, w.tokens_sampled)
        assert abs(g.logprob - w.logprob) <= tiny.errors.solution


def test_the_tiny_model_tries_what_these_tests_are_about(tiny, samples):
    """Were no row to end, or all rows one step long, the other tests would say little."""
    solutions = flat(samples)
    steps = [sum(t in tiny.step_ends for t in s.tokens) for s in solutions]
    finished = sum(s.finished for s in solutions)
    assert 0.2 * len(solutions) < finished < len(solutions)
    assert sum(s.finished and count > 2 for s, count in zip(solutions, steps, strict=True)) >= 4
    assert len({s.tokens for s in solutions}) > 0.9 * len(solutions)


def test_solutions_are_cut_where_they_end(tiny, samples):
    eos = tiny.tokenizer.eos_id
    for s in flat(samples):
        assert s.finished == (s.tokens[-1] == eos)
        assert eos not in s.tokens[:-1], "sampling went on after the end mark"
        assert s.finished or len(s.tokens) == 24, "an unfinished row ended before the length limit"
        assert s.text == tiny.tokenizer.decode(s.tokens)
        assert s.tokens_sampled == len(s.tokens)


@pytest.mark.parametrize("rows", [2, N, 7 * N])
def test_samples_do_not_depend_on_the_batch(tiny, prompts, samples, rows):
    """Rows for half a question, one and seven; `samples` has nine at once."""
    assert_same(tiny, tiny.engine(rows=rows).sample(prompts, N, SEED), samples)


def test_samples_do_not_depend_on_other_questions(tiny, prompts, samples):
    """64 questions at once, all in rows of their own or few rows refilled all the time, as much as nine."""
    many = tiny.prompts(tiny.engine(), count=64)
    assert len(many) == 64
    for rows in (64 * N, 5):
        assert_same(tiny, tiny.engine(rows=rows).sample(many, N, SEED)[: len(prompts)], samples)


def test_samples_do_not_depend_on_devices_nor_order(tiny, prompts, samples):
    found = tiny.engine(devices=8).sample(prompts[::-1], N, SEED)
    assert_same(tiny, found[::-1], samples)


@pytest.mark.parametrize(
    ("devices", "count", "n", "parts"), [(8, 1, 70, 5), (8, 3, 48, 2), (3, 1, 40, 3), (8, 1, 16, 1)]
)
def test_devices_without_a_question_share_those_of_others(tiny, prompts, devices, count, n, parts):
    """Fewer questions than devices: each question's samples are dealt out, unequal shares among them, while there are
    more of them than a device has rows."""
    asked, read = prompts[:count], []
    engine, alone = tiny.engine(devices=devices), tiny.engine()
    batches = engine.scheduler.batches

    def watched(requests, most):
        read.extend(requests)
        return batches(requests, most)

    engine.scheduler.batches = watched
    assert_same(tiny, engine.sample(asked, n, SEED), alone.sample(asked, n, SEED))
    assert len(read) == count * parts, "devices would idle, or work for rows that they have anyway"
    assert [request.prompt for request in read] == [prompt for prompt in asked for _ in range(parts)]
    assert sum(request.count for request in read) == count * n


def test_samples_do_not_depend_on_the_padding_of_prompts(tiny, prompts, samples):
    engine = tiny.engine(prompt_bucket=32)
    assert len({bucket(len(p.tokens) - 1, 32) for p in prompts}) > 1
    assert_same(tiny, engine.sample(prompts, N, SEED), samples)


def test_seed_and_question_change_samples(engine, prompts, samples):
    other = engine.sample(prompts, N, SEED + 1)
    assert sum(a.tokens == b.tokens for a, b in zip(flat(other), flat(samples), strict=True)) <= 2
    renamed = [dataclasses.replace(p, id=f"{p.id}'") for p in prompts]
    other = engine.sample(renamed, N, SEED)
    assert sum(a.tokens == b.tokens for a, b in zip(flat(other), flat(samples), strict=True)) <= 2


def test_first_sample_gives_the_tail_of_a_larger_call(tiny, engine, prompts, samples):
    tail = engine.sample(prompts, N - 1, SEED, first_sample=1)
    assert_same(tiny, tail, [row[1:] for row in samples])


def test_greedy_sampling_is_the_argmax_of_the_full_pass_at_every_token(tiny, prompts):
    found = flat(tiny.engine(temperature=0.0).sample(prompts, 1, SEED))
    logits = full_pass(tiny.policy, prompts, [s.tokens for s in found], lambda p, h, _, c: heads.logits(p, h, c))
    for b, (prompt, solution) in enumerate(zip(prompts, found, strict=True)):
        start = len(prompt.tokens) - 1
        # By induction this is argmax decoding: each token is the best after the prompt and those before it, or as good
        # but for rounding, once of each.
        for place, token in enumerate(solution.tokens, start):
            assert logits[b, place].max() - logits[b, place, token] <= 2 * tiny.errors.token


def test_a_call_may_have_its_own_temperature(tiny, engine, prompts):
    found = engine.sample(prompts, 1, SEED, temperature=0.0)
    assert [s.tokens for s in flat(found)] == [
        s.tokens for s in flat(tiny.engine(temperature=0.0).sample(prompts, 1, SEED))
    ]


def test_no_program_is_compiled_for_a_temperature(tiny, prompts):
    engine = tiny.engine()
    at_one = engine.sample(prompts, 2, SEED)
    compiled = len(engine.compilations)
    cold = engine.sample(prompts, 2, SEED, temperature=0.6)
    assert len(engine.compilations) == compiled, "sampling was compiled anew for a temperature"
    assert_same(tiny, cold, tiny.engine(temperature=0.6).sample(prompts, 2, SEED))
    assert [s.tokens for s in flat(cold)] != [s.tokens for s in flat(at_one)]


def test_logprob_is_the_sum_over_the_full_pass(tiny, prompts, samples):
    rows = [row[0] for row in samples]
    found = full_pass(
        tiny.policy,
        prompts,
        [s.tokens for s in rows],
        lambda p, h, t, c: heads.token_logprob(p, h[:, :-1], t[:, 1:], c),
    )
    for b, (prompt, solution) in enumerate(zip(prompts, rows, strict=True)):
        start = len(prompt.tokens) - 1
        assert abs(solution.logprob - found[b, start : start + len(solution.tokens)].sum()) <= tiny.errors.solution


@pytest.mark.parametrize("kind", ["plain_verifier", "verifier"])
def test_scores_are_those_of_the_full_pass_at_step_ends(tiny, prompts, samples, kind):
    verifier = getattr(tiny, kind)
    scored = tiny.engine(verifier=verifier).score(prompts, samples)
    pairs = [(p, s) for p, row in zip(prompts, scored, strict=True) for s in row]
    each, rows = [p for p, _ in pairs], [s.tokens for _, s in pairs]
    least = np.zeros((len(rows), verifier.config.max_seq_len), np.float32)
    if verifier.judge.likelihood:
        found = full_pass(verifier, each, rows, lambda p, h, t, c: heads.token_logprob(p, h[:, :-1], t[:, 1:], c))
        for b, (prompt, row) in enumerate(zip(each, rows, strict=True)):
            start = len(prompt.tokens)
            least[b, start : start + len(row)] = np.minimum.accumulate(found[b, start - 1 : start - 1 + len(row)])
    values = full_pass(
        verifier, each, rows, lambda p, h, _, c: jax.nn.sigmoid(verifier.judge.value(p, h, jnp.asarray(least)))
    )
    for b, (prompt, solution) in enumerate(pairs):
        ends = [i for i, t in enumerate(solution.tokens) if t in tiny.step_ends]
        want = [values[b, len(prompt.tokens) + i] for i in ends]
        np.testing.assert_allclose(solution.step_scores, want, rtol=0, atol=tiny.errors.score)
        assert solution.tokens_verified == len(solution.tokens) + 1
    assert np.std([x for _, s in pairs for x in s.step_scores]) > 0.01, "the scores hardly differ: a test of nothing"


def test_equal_solutions_are_read_once_and_scored_alike(tiny, prompts, samples, monkeypatch):
    engine = tiny.engine()
    repeated = [row[:1] * 40 for row in samples]
    read = []
    programs = engine.scheduler.programs
    get = programs.get

    def watched(*args, **kwargs):
        compiled = get(*args, **kwargs)

        def run(verifier, batch, tokens, begin, length):
            read.append(int((length > 1).sum()))
            return compiled(verifier, batch, tokens, begin, length)

        return run

    monkeypatch.setattr(programs, "get", watched)
    scored = engine.score(prompts, repeated)
    assert sum(read) == len(prompts)
    for row, first in zip(scored, engine.score(prompts, [row[:1] for row in samples]), strict=True):
        assert {s.step_scores for s in row} == {first[0].step_scores}


def test_a_prompt_that_leaves_no_room_is_refused(tiny, engine, prompts):
    long = engine.encode_prompt("long", "7" * 80)
    with pytest.raises(UserError, match=r"prompt of long has 81 tokens.*shorten the prompt or lower --sampler.max_tok"):
        engine.sample([prompts[0], long], N, SEED)
    room = tiny.policy.config.max_seq_len - len(long.tokens)
    assert len(engine.sample([long], 1, SEED, max_tokens=room)[0]) == 1
    with pytest.raises(UserError):
        engine.sample([long], 1, SEED, max_tokens=room + 1)


def test_what_cannot_be_sampled_is_refused(engine, prompts):
    for n, max_tokens in ((0, 5), (2, 0)):
        with pytest.raises(ValueError, match="must be at least 1"):
            engine.sample(prompts[:1], n, SEED, max_tokens=max_tokens)
    with pytest.raises(UserError, match="is empty"):
        engine.sample([dataclasses.replace(prompts[0], tokens=())], 1, SEED)
    assert engine.sample([], 2, SEED) == []


def test_a_prompt_with_a_limit_of_its_own_ends_there(engine, prompts, samples):
    """A rollout from the middle of a solution has the room that the solution has left."""
    limits = [3, None, 7, 24, 1, 100, 5, 0, 6]
    limited = [dataclasses.replace(p, max_tokens=limit) for p, limit in zip(prompts, limits, strict=True)]
    for found, want, limit in zip(engine.sample(limited, N, SEED), samples, limits, strict=True):
        assert [s.tokens for s in found] == [s.tokens[:limit] for s in want]
        assert [s.finished for s in found] == [
            s.finished and len(s.tokens) <= (24 if limit is None else limit) for s in want
        ]
    long = engine.encode_prompt("long", "7" * 80)
    assert len(engine.sample([dataclasses.replace(long, max_tokens=15)], 1, SEED)[0]) == 1


def test_scoring_without_a_verifier_says_what_to_do(tiny, prompts, samples):
    engine = Engine(tiny.policy, tiny.tokenizer, SamplerConfig())
    with pytest.raises(UserError, match="train one with `ttcjax prm"):
        engine.score(prompts, samples)


def test_rows_go_on_past_what_the_verifier_reads_and_are_then_not_scored(tiny, prompts):
    """A revision model has its answers in view; a verifier of base samples, which reads less, judges each alone."""
    limit = 40
    short = dataclasses.replace(tiny.verifier, config=dataclasses.replace(tiny.verifier.config, max_seq_len=limit))
    engine = tiny.engine(verifier=short, max_tokens=4)
    prompt = dataclasses.replace(prompts[0], tokens=prompts[0].tokens[:12])
    [[row]] = engine.resume([prompt], [[Begun((5,) * 30, 0, 0)]], SEED)
    assert engine.score([prompt], [[row]])
    with pytest.raises(UserError, match=rf"continuation have \d+ tokens, more than the verifier's limit of {limit}"):
        engine.score([prompt], [[row]], [[(5,) * 30]])


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_logits_that_are_not_finite_are_an_error_that_names_the_question(engine, prompts, monkeypatch, bad):
    scale = jnp.full_like(engine.policy["final_norm"], bad)
    monkeypatch.setattr(engine, "policy", {**engine.policy, "final_norm": scale})
    with pytest.raises(UserError, match=rf"policy's logits are not finite at question {prompts[0].id}: .* checkpoint"):
        engine.sample(prompts, N, SEED)
    with pytest.raises(UserError, match=rf"policy's logits are not finite at question {prompts[0].id}"):
        engine.sample(prompts, 1, SEED, temperature=0.0)
    with pytest.raises(UserError, match=rf"policy's logits are not finite at question {prompts[1].id}"):
        engine.resume(prompts[1:2], [[Begun((5, 6), 0, 0)]], SEED)
    with pytest.raises(UserError, match=rf"policy's logits are not finite at question {prompts[1].id}"):
        engine.logprobs(prompts[1:2], [[(5, 6)]])


def test_only_the_question_that_meets_bad_weights_is_named(tiny, engine, prompts, monkeypatch):
    """One token's embedding is damaged: questions and solutions without it are as before."""
    token = next(t for t in prompts[3].tokens if sum(t in p.tokens for p in prompts) == 1)
    sound = engine.sample(prompts[:3], 1, SEED, max_tokens=1)
    monkeypatch.setattr(engine, "policy", {**engine.policy, "embed": engine.policy["embed"].at[token].set(jnp.nan)})
    with pytest.raises(UserError, match=f"at question {prompts[3].id}:"):
        engine.sample(prompts[:4], 1, SEED, max_tokens=1)
    assert_same(tiny, engine.sample(prompts[:3], 1, SEED, max_tokens=1), sound)


def test_a_verifier_whose_scores_are_not_finite_is_an_error(engine, prompts, samples, monkeypatch):
    value = jax.tree.map(lambda leaf: jnp.full_like(leaf, jnp.nan), engine.verifier["value"])
    monkeypatch.setattr(engine, "verifier", {**engine.verifier, "value": value})
    with pytest.raises(UserError, match=f"verifier's scores are not finite at question {prompts[0].id}"):
        engine.score(prompts, samples)


def test_a_place_of_the_batch_remembers_bad_logits_when_its_sequence_is_dropped(tiny):
    none = jnp.zeros(2, jnp.int32)
    keys = state.row_keys(0, none.astype(jnp.uint32), none.astype(jnp.uint32))
    rows = state.start(none, none, keys, none == 0, 4, cache.empty_suffix(tiny.policy.config, 2, 4))
    rows = dataclasses.replace(rows, broken=jnp.array([True, False]))
    assert rows.fork(jnp.array([1, 1])).broken.tolist() == [True, False]


@dataclasses.dataclass(frozen=True)
class OtherTokenizer:
    """The tokenizer `tiny.tokenizer` with other facts about itself."""

    inner: Any
    vocab_size: int
    fingerprint: str

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_a_tokenizer_that_is_not_the_models_is_refused(tiny):
    own, size = tiny.tokenizer.fingerprint, tiny.tokenizer.vocab_size
    known = {name: dataclasses.replace(getattr(tiny, name), tokenizer=own) for name in ("policy", "verifier")}
    other: Any = OtherTokenizer(tiny.tokenizer, size, "0123456789abcdef")
    Engine(known["policy"], tiny.tokenizer, SamplerConfig(), known["verifier"])
    Engine(tiny.policy, other, SamplerConfig(), tiny.verifier)  # of neither is it known
    with pytest.raises(UserError, match=rf"policy was trained with tokenizer {own}, not with 0123456789abcdef: take"):
        Engine(known["policy"], other, SamplerConfig(), tiny.verifier)
    with pytest.raises(UserError, match=f"verifier was trained with tokenizer {own}"):
        Engine(tiny.policy, other, SamplerConfig(), known["verifier"])
    larger: Any = OtherTokenizer(tiny.tokenizer, size + 1, own)
    for models in ((known["policy"],), (tiny.policy,)):
        with pytest.raises(UserError, match=rf"tokenizer has {size + 1} ids and the policy a vocabulary of {size}"):
            Engine(models[0], larger, SamplerConfig())
    small = dataclasses.replace(tiny.verifier, config=dataclasses.replace(tiny.verifier.config, vocab_size=size - 1))
    with pytest.raises(UserError, match="the verifier a vocabulary of"):
        Engine(tiny.policy, tiny.tokenizer, SamplerConfig(), small)
    padded = dataclasses.replace(tiny.policy, config=dataclasses.replace(tiny.policy.config, vocab_size=size + 1))
    check_tokenizer(tiny.tokenizer, padded, "policy")  # an embedding table may be padded


def test_a_loaded_model_knows_its_tokenizer(tiny, tmp_path):
    metadata = {"kind": "policy", "model": to_dict(tiny.policy.config), "tokenizer": tiny.tokenizer.fingerprint}
    save_params(tmp_path / "policy" / "best", tiny.policy.params, metadata)
    model = load_model(Inputs.of(epath.Path(tmp_path), ["policy"]), "policy", tiny.tokenizer)
    assert model.tokenizer == tiny.tokenizer.fingerprint
    other: Any = OtherTokenizer(tiny.tokenizer, tiny.tokenizer.vocab_size, "another")
    with pytest.raises(UserError, match="trained with tokenizer"):
        Engine(model, other, SamplerConfig())


def test_nothing_compiles_once_the_shapes_are_warm(tiny, engine, prompts, samples):
    engine.score(prompts, samples)
    others = tiny.prompts(engine, start=20, count=len(prompts))
    with CompileClock() as clock:
        found = engine.sample(others, N, SEED + 1)
        engine.score(others, found)
    assert clock.compilations == 0


def test_filtered_samples_do_not_depend_on_devices(tiny, prompts):
    """Each device looks for ties in its own rows."""
    one, eight = (tiny.engine(devices=d, top_k=5, top_p=0.9).sample(prompts, 2, SEED) for d in (1, 8))
    assert_same(tiny, eight, one)
