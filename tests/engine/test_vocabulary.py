"""Vocabularies in which id 0 is an ordinary token, several tokens end a solution, and steps end as a task says."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import rounding
from tests.searching import candidates
from ttcjax.config import ModelConfig, SamplerConfig
from ttcjax.engine.engine import Engine, Model, Prompt
from ttcjax.engine.requests import Begun
from ttcjax.model import heads, transformer
from ttcjax.model.params import spec
from ttcjax.search.strategies.beam import Beam
from ttcjax.search.strategies.best_of_n import BestOfN
from ttcjax.text.steps import LINES, StepFormat
from ttcjax.verify.token_pair import STEP_END, TokenPair
from ttcjax.verify.value_head import ValueHead

SEED, LIMIT = 3, 256
CONFIG = ModelConfig(
    vocab_size=12,
    num_layers=2,
    d_model=16,
    num_heads=2,
    num_kv_heads=1,
    head_dim=8,
    d_ff=32,
    max_seq_len=LIMIT,
    tie_embeddings=False,
)
PROMPTS = [Prompt(f"q{i}", (1, *row)) for i, row in enumerate([(3, 0, 6), (0, 0), (8, 2, 2, 9, 0), (10,)])]
"""Some end with token 0, and have it within."""


class Letters:
    """A tokenizer of twelve ids, the first of them a letter as any."""

    pieces = (b"a", b"", b"\n", b"b", b"c", b"", b"d", b"!", b"e", b"f", b"g", b" h")
    pad_id, bos_id, eos_id, unk_id = None, 1, 5, 9
    begin_ids, marks, chat_template = (1,), {}, None
    vocab_size, fingerprint = len(pieces), "letters"

    def __init__(self, stop_ids=(5, 7)):
        self.stop_ids = stop_ids

    def encode(self, text):
        return [self.pieces.index(letter.encode()) for letter in text]

    def encode_batch(self, texts):
        return [self.encode(text) for text in texts]

    def encode_starts(self, rows):
        return [self.encode("".join(row)) for row in rows]

    def decode(self, ids):
        return b"".join(self.pieces[int(i)] for i in ids).decode()

    def decode_batch(self, rows):
        return [self.decode(row) for row in rows]


def drawn(kinds, seed):
    rng = np.random.default_rng(seed)

    def leaf(s):
        centre = 1.0 if s.init in ("ones", "norm_scale") else 0.0
        return jnp.asarray(centre + s.fan_in**-0.5 * rng.normal(size=s.shape), s.dtype)

    return jax.tree.map(leaf, spec(CONFIG, kinds))


@pytest.fixture(scope="module")
def models():
    """A policy that often says 0, newlines and stops, and a verifier."""
    policy = drawn(("vocab",), 0)
    policy["embed"] = policy["embed"].at[:, 0].add(4.0)
    first = np.zeros(CONFIG.vocab_size, np.float32)
    first[[2, 5, 7]] = 1.2, -0.1, -0.5
    # Token 4 is what these weights say most; it changes places with 0.
    places = jnp.array([4, 1, 2, 3, 0, *range(5, CONFIG.vocab_size)])
    policy["unembed"] = (1.5 * policy["unembed"])[:, places].at[0].set(first)
    return Model(policy, CONFIG), Model(drawn(("value",), 1), CONFIG, judge=ValueHead())


def engine_of(models, stop_ids=(5, 7), steps=LINES, **sampler):
    settings = {"max_tokens": 24, "max_step_tokens": 8, "verifier_chunk": 4, "rows": 16} | sampler
    return Engine(models[0], Letters(stop_ids), SamplerConfig(**settings), models[1], steps=steps)


def flat(rows):
    return [s for row in rows for s in row]


@functools.partial(jax.jit, static_argnums=2)
def whole(params, tokens, kind):
    """Return logits, log-probabilities or scores of one row, from one pass without any cache."""
    hidden = transformer.forward(params, tokens[None], jnp.arange(len(tokens))[None], CONFIG)[0]
    if kind == "score":
        return jax.nn.sigmoid(heads.value(params, hidden))
    logits = heads.logits(params, hidden, CONFIG)
    return logits if kind == "logits" else jax.nn.log_softmax(logits, axis=-1)


def full(params, row, kind):
    """Return what `whole` does for any row, padded with a token other than 0, which nothing before it sees."""
    padded = np.full(LIMIT, 11, np.int32)
    padded[: len(row)] = row
    return np.asarray(whole(params, jnp.asarray(padded), kind))[: len(row)]


@pytest.fixture(scope="module")
def errors(models):
    """Largest difference that rounding explains, by kind."""
    row = jnp.asarray(np.random.default_rng(5).integers(0, 12, LIMIT), jnp.int32)
    return {
        kind: rounding.noise(lambda params, kind=kind: whole(params, row, kind), model.params, LIMIT)
        for kind, model in (("logits", models[0]), ("logprobs", models[0]), ("score", models[1]))
    }


def rows_that_end_with_token_0():
    """Rows of more tokens than are read at once, of which the last ones, more than a piece, are 0."""
    rng = np.random.default_rng(7)
    return [
        (*(int(t) for t in rng.integers(0, 12, kept)), *[0] * zeros) for kept, zeros in ((90, 120), (130, 70), (3, 4))
    ]


def assert_greedy(policy, before, tokens, error, stops):
    """Each token is the likeliest after all those before it, but for rounding; and the first stop is the last token."""
    row = (*before, *tokens)
    logits = full(policy, row, "logits")
    for place in range(len(before), len(row)):
        assert logits[place - 1].max() - logits[place - 1, row[place]] <= 2 * error, f"token {place} of {row}"
    assert not set(tokens[:-1]) & set(stops)


def test_greedy_samples_with_token_0_are_those_of_the_full_pass(models, errors):
    engine = engine_of(models, temperature=0.0)
    found = [s for [s] in engine.sample(PROMPTS, 1, SEED)]
    assert sum(0 in s.tokens for s in found) >= 2, "token 0 is not likely here: a test of nothing"
    for prompt, s in zip(PROMPTS, found, strict=True):
        assert_greedy(models[0].params, prompt.tokens, s.tokens, errors["logits"], (5, 7))
        assert s.text == Letters().decode(s.tokens[: len(s.tokens) - s.finished])
        assert len(s.tokens) == 24 or s.finished


def test_rows_go_on_after_token_0_as_after_any_other(models, errors):
    engine = engine_of(models, temperature=0.0, max_tokens=8)
    begun = [Begun(row, i, 0) for i, row in enumerate(rows_that_end_with_token_0())]
    [found] = engine.resume(PROMPTS[:1], [begun], SEED)
    for row, s in zip(begun, found, strict=True):
        assert_greedy(models[0].params, PROMPTS[0].tokens + row.tokens, s.tokens, errors["logits"], (5, 7))


def test_logprobs_of_rows_that_end_with_token_0_are_those_of_the_full_pass(models, errors):
    rows = rows_that_end_with_token_0()
    for prompt, numbers in zip(PROMPTS, engine_of(models).logprobs(PROMPTS, [rows] * len(PROMPTS)), strict=True):
        for row, got in zip(rows, numbers, strict=True):
            both = (*prompt.tokens, *row)
            table = full(models[0].params, both, "logprobs")
            want = [table[i - 1, both[i]] for i in range(len(prompt.tokens), len(both))]
            np.testing.assert_allclose(got, want, rtol=0, atol=errors["logprobs"])


def test_scores_of_rows_with_token_0_before_their_last_step_are_those_of_the_full_pass(models, errors):
    """Also where token 0 itself ends the steps: what is padding is said by lengths."""
    zero = StepFormat("a")
    for steps, end in ((LINES, 2), (zero, 0)):
        engine = engine_of(models, steps=steps)
        rows = [(*row, 2) if steps == LINES else row for row in rows_that_end_with_token_0()]
        made = engine.sample(PROMPTS[:1], len(rows), SEED)[0]
        solutions = [dataclasses.replace(s, tokens=row) for s, row in zip(made, rows, strict=True)]
        [scored] = engine.score(PROMPTS[:1], [solutions])
        for row, s in zip(rows, scored, strict=True):
            values = full(models[1].params, PROMPTS[0].tokens + row, "score")[len(PROMPTS[0].tokens) :]
            want = [values[i] for i, token in enumerate(row) if token in (end, 5, 7)]
            np.testing.assert_allclose(s.step_scores, want, rtol=0, atol=errors["score"])


def test_a_token_pair_of_token_0_reads_rows_that_end_with_it(models, errors):
    """Token 0 is the mark and the right one of the two: what the verifier is fed ends by its length too, and its mark
    may stand past the last token that the policy wrote."""
    judge = TokenPair(good=0, bad=3, marks=(STEP_END, 0), at=1)
    engine = engine_of((models[0], dataclasses.replace(models[0], judge=judge)))
    rows = [(*row, 2) for row in rows_that_end_with_token_0()] + [(0,) * 150, (2,) * 40, (4,) * 100 + (2, 0)]
    made = engine.sample(PROMPTS[:1], len(rows), SEED)[0]
    [scored] = engine.score(PROMPTS[:1], [[dataclasses.replace(s, tokens=r) for s, r in zip(made, rows, strict=True)]])
    for row, s in zip(rows, scored, strict=True):
        fed, marks = list(PROMPTS[0].tokens), []
        for token in row:
            fed += [token, 0] if token in (2, 5, 7) else [token]
            marks += [len(fed) - 1] if token in (2, 5, 7) else []
        logits = full(models[0].params, fed, "logits")[marks]
        want = 1 / (1 + np.exp(logits[:, 3] - logits[:, 0]))
        # A probability moves by at most a quarter of what its logit does, and there are two of these.
        np.testing.assert_allclose(s.step_scores, want, rtol=0, atol=errors["logits"])
        assert s.tokens_verified == 1 + len(fed) - len(PROMPTS[0].tokens)


def test_any_stop_token_ends_a_row(models):
    """Samples are those of an engine without stop tokens, cut after the first one."""
    endless = engine_of(models, stop_ids=()).sample(PROMPTS, 12, SEED)
    for stops in ((7,), (0,), (3, 7)):
        found = engine_of(models, stop_ids=stops).sample(PROMPTS, 12, SEED)
        last = set()
        for s, long in zip(flat(found), flat(endless), strict=True):
            ends = [i for i, token in enumerate(long.tokens) if token in stops]
            assert s.tokens == (long.tokens[: ends[0] + 1] if ends else long.tokens)
            assert s.finished == bool(ends)
            assert s.text == Letters().decode(long.tokens[: ends[0]] if ends else long.tokens), (
                "a stop token is no text"
            )
            last |= {s.tokens[-1]} & set(stops)
        assert last == set(stops), "a stop token is not drawn here: a test of nothing"
    assert not any(s.finished for s in flat(endless))


@pytest.mark.parametrize(
    "steps",
    [StepFormat("\n\n"), StepFormat("ab"), StepFormat("b\n", pattern=r"[bc]\n?\n|b a")],
    ids=["blank lines", "two tokens", "a pattern"],
)
def test_searches_pause_where_the_tasks_steps_end(models, errors, steps):
    engine = engine_of(models, steps=steps, max_tokens=40)
    found = candidates(engine, Beam(4, 2), PROMPTS, SEED)
    marks, counts = steps.marks(Letters()), []
    for row, again in zip(found, engine.score(PROMPTS, found), strict=True):
        for s, scored in zip(row, again, strict=True):
            assert len(s.step_scores) == len(marks.ends(s.tokens)) == len(steps.split(s.text)) - 1 + s.finished
            np.testing.assert_allclose(s.step_scores, scored.step_scores, rtol=0, atol=errors["score"])
            counts.append(len(s.step_scores))
    assert sum(count > 1 for count in counts) >= 3, "there are hardly any steps: a test of nothing"
    for s in flat(candidates(engine, BestOfN(4), PROMPTS, SEED)):
        assert len(s.step_scores) == len(marks.ends(s.tokens))


def test_every_round_of_a_search_ends_with_a_step(models):
    """But for those that are cut at their length, or at the end of a solution."""
    steps, longest = StepFormat("\n\n"), 40
    engine = engine_of(models, steps=steps, max_tokens=longest, max_step_tokens=longest)
    rows = engine.sample(PROMPTS, 4, SEED)
    assert any("\n\n" in s.text for s in flat(rows)), "no blank line is drawn: a test of nothing"
    found = candidates(engine, Beam(4, 2, max_rounds=1), PROMPTS, SEED)
    for s in flat(found):
        assert s.finished or s.text.endswith("\n\n") or len(s.tokens) == longest
        assert "\n\n" not in s.text[:-2], "a round went on after its step's end"
