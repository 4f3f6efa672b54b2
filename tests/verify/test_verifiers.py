"""Every verifier on the device: pieces against whole rows, and both against one full pass over a list of tokens."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests import rounding
from ttcjax.config import ConfigError, ModelConfig, from_dict, to_dict
from ttcjax.engine.loading import model_of
from ttcjax.model import cache, heads, params, transformer
from ttcjax.runtime.errors import UserError
from ttcjax.verify import formats
from ttcjax.verify import verifier as base
from ttcjax.verify.token_pair import STEP_END, TokenPair
from ttcjax.verify.value_head import ValueHead

PLAIN = ModelConfig(vocab_size=30, num_layers=2, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, d_ff=24)
UNTIED = dataclasses.replace(PLAIN, tie_embeddings=False)
ENDS = (3, 5, 9, 11, 17, 20, 26)
"""Ids that end a step: there are some in most rows, and two in a row."""
CASES: dict[str, tuple[ModelConfig, Any]] = {
    "value head": (PLAIN, ValueHead()),
    "likelihood": (UNTIED, ValueHead(likelihood=True)),
    "step end": (UNTIED, TokenPair(good=4, bad=7)),
    "mark after": (PLAIN, TokenPair(good=4, bad=7, marks=(STEP_END, 8), at=1)),
    "mark before": (UNTIED, TokenPair(good=4, bad=7, marks=(8, STEP_END))),
    "turns": (dataclasses.replace(PLAIN, logit_soft_cap=2.0), TokenPair(good=4, bad=7, marks=(1, 2, 4, 6), at=1)),
}
LONGEST = 64
"""Slots of the full passes: one program for all rows."""


@functools.partial(jax.jit, static_argnames="config")
def full_pass(tree, tokens, config):
    hidden = transformer.forward(tree, tokens, jnp.arange(LONGEST)[None], config)[0]
    return hidden, heads.logits(tree, hidden, config) if "unembed" in tree or "value" not in tree else None


def passed(tree, tokens, config) -> tuple[Any, Any]:
    padded = jnp.asarray([[*tokens, *[0] * (LONGEST - len(tokens))]], jnp.int32)
    hidden, logits = full_pass(tree, padded, config)
    return hidden[: len(tokens)], None if logits is None else np.asarray(logits[: len(tokens)], np.float64)


def by_value(judge, tree, config, prompt, row):
    """Score every slot by the value head, with the least log-probability found by a loop."""
    tokens = [*prompt, *row]
    hidden, logits = passed(tree, tokens, config)
    value = hidden @ tree["value"]["w"] + tree["value"]["b"]
    if judge.likelihood:
        logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        least, out = 0.0, []
        for t in range(len(tokens)):
            if t >= len(prompt):
                least = min(least, float(logprobs[t - 1, tokens[t]]))
            out.append(least)
        value = value + tree["value"]["likelihood"] * jnp.maximum(jnp.array(out), heads.LEAST_LOGPROB)
    return np.asarray(jax.nn.sigmoid(value))[len(prompt) - 1 :]


def by_marks(judge, tree, config, prompt, row):
    """Write the row down as it is fed and score it by the softmax over two of all logits at each mark."""
    fed, marks, score = list(prompt), [], [0.5]
    for token in row:
        if token in ENDS:
            marks.append(len(fed) + judge.at)
        fed += [token if mark == STEP_END else mark for mark in judge.marks] if token in ENDS else [token]
    _, logits = passed(tree, fed, config)
    of_steps = [np.exp(x[judge.good]) / (np.exp(x[judge.good]) + np.exp(x[judge.bad])) for x in logits[marks]]
    for token in row:
        score.append(of_steps.pop(0) if token in ENDS else score[-1])
    return np.array(score)


REFERENCES = {ValueHead: by_value, TokenPair: by_marks}
"""By class: scores of a row, read as far as each of its slots; slot 0 is the prompt's last token."""


def drawn(config, judge):
    """Return parameters drawn by NumPy: compiling `params.init` takes longer than all the tests here."""
    rng = np.random.default_rng(0)

    def leaf(spec):
        spread = spec.fan_in**-0.5 if spec.init == "normal" else 0.1
        return jnp.asarray((spec.init in ("ones", "norm_scale")) + spread * rng.normal(size=spec.shape), spec.dtype)

    tree = jax.tree.map(leaf, params.spec(config, judge.heads))
    if "value" in tree:
        tree["value"]["w"] = jnp.asarray(rng.normal(size=config.d_model), jnp.float32)
    return params.unstack_layers(tree)


@dataclasses.dataclass
class Case:
    config: ModelConfig
    judge: Any
    tree: Any
    prefix: Any
    tokens: jax.Array
    prompts: list[list[int]]
    """Prompt of each row."""
    allowed: float

    def fed(self, lengths=(10, 10, 10, 10), begin=(1, 1, 1, 1), rows=(0, 1, 2, 3)):
        tokens, first = self.tokens[jnp.array(rows)], jnp.array(begin)
        slots = jnp.arange(tokens.shape[1])[None]
        ends = jnp.isin(tokens, jnp.array(ENDS)) & (slots >= first[:, None]) & (slots < jnp.array(lengths)[:, None])
        return self.judge.feed(tokens, jnp.array(lengths), first, ends)

    def want(self, b, begin=1):
        """Return the score of row b at each slot from `begin - 1` on."""
        row = self.tokens[b].tolist()
        return reference(self.judge, self.tree, self.config, [*self.prompts[b], *row[1:begin]], row[begin:])

    def want_steps(self, b, begin=1):
        row = self.tokens[b, begin:].tolist()
        return [x for x, token in zip(self.want(b, begin)[1:], row, strict=True) if token in ENDS]


def reference(judge, tree, config, prompt, row):
    return REFERENCES[type(judge)](judge, tree, config, prompt, row)


@pytest.fixture(scope="module", params=CASES)
def case(request):
    config, judge = CASES[request.param]
    tree = drawn(config, judge)
    rng = np.random.default_rng(2)
    prompts, lengths = jnp.asarray(rng.integers(1, 30, (2, 6))), [6, 4]  # of the prompts, the token in slot 0 included
    rows = jnp.asarray(rng.integers(1, 30, (4, 9)))
    last = jnp.array([prompts[q, n - 1] for q, n in enumerate(lengths)])
    tokens = jnp.concatenate([jnp.repeat(last, 2)[:, None], rows], axis=1).astype(jnp.int32)
    prefix = jax.jit(cache.prefill, static_argnums=3)(tree, prompts.astype(jnp.int32), jnp.array(lengths) - 1, config)
    whole = [prompts[b // 2, : lengths[b // 2]].tolist() for b in range(4)]
    allowed = max(
        rounding.noise(lambda t, p=p, r=r: reference(judge, t, config, p, r), tree, config.d_ff)
        for p, r in zip(whole, rows.tolist(), strict=True)
    )
    return Case(config, judge, tree, prefix, tokens, whole, allowed)


def score_steps(case, fed, max_steps=9):
    run = jax.jit(functools.partial(case.judge.score_steps, config=case.config, max_steps=max_steps))
    return np.asarray(run(case.tree, case.prefix, fed))


def test_steps_of_whole_rows_equal_a_full_pass(case):
    got = score_steps(case, case.fed())
    for b in range(4):
        want = case.want_steps(b)
        assert len(want) > 1, "rows without steps test nothing"
        np.testing.assert_allclose(got[b], [*want, *[0.0] * (9 - len(want))], rtol=0, atol=case.allowed)


def test_every_token_of_whole_rows_equals_a_full_pass(case):
    """A value head scores any token; others only marks."""
    if not isinstance(case.judge, ValueHead):
        pytest.skip("scores marks alone")
    run = jax.jit(functools.partial(case.judge.score_tokens, config=case.config))
    got = run(case.tree, case.prefix, case.fed())
    for b in range(4):
        np.testing.assert_allclose(got[b], case.want(b), rtol=0, atol=case.allowed)


def test_what_was_given_is_the_prompts(case):
    """Earlier answers stand in the row but were not this one's choice: no step of theirs is judged, and the scores are
    as if they were the prompt's."""
    begin = (1, 4, 2, 7)
    got = score_steps(case, case.fed(begin=begin))
    for b, first in enumerate(begin):
        want = case.want_steps(b, first)
        np.testing.assert_allclose(got[b], [*want, *[0.0] * (9 - len(want))], rtol=0, atol=case.allowed)


def test_what_stands_past_the_end_of_a_row_means_nothing(case):
    """Rows end where their lengths say, whatever tokens follow, those that end steps among them; as a whole and read
    in pieces."""
    lengths, slots = [4, 10, 7, 2], jnp.arange(case.tokens.shape[1])[None]
    read = jax.jit(functools.partial(case.judge.read, config=case.config, chunk=3))
    found = []
    for filler in (0, ENDS[0], 29):
        tokens = jnp.where(slots < jnp.array(lengths)[:, None], case.tokens, filler)
        fed = dataclasses.replace(case, tokens=tokens).fed(lengths)
        reading = read(case.tree, case.prefix, case.judge.start(case.config, 4, tokens.shape[1]), fed)
        found.append((score_steps(case, fed), np.asarray(case.judge.score(case.tree, reading, case.config))))
    for whole, pieces in found[1:]:
        np.testing.assert_array_equal(whole, found[0][0], "a step's score depends on padding")
        np.testing.assert_array_equal(pieces, found[0][1], "a row's score depends on padding")


@pytest.mark.parametrize("chunk", [1, 2, 5])
def test_reading_on_in_ragged_pieces_equals_a_full_pass(case, chunk):
    """Each round reads what is new, one row nothing at all; the score of the newest token must not notice."""
    reading = case.judge.start(case.config, 4, case.tokens.shape[1])
    read = jax.jit(functools.partial(case.judge.read, config=case.config, chunk=chunk))
    wants = [case.want(b) for b in range(4)]
    for lengths in ([4, 2, 5, 3], [6, 6, 5, 7], [10, 7, 9, 8]):
        fed = case.fed(lengths)
        reading = read(case.tree, case.prefix, reading, fed)
        assert reading.read.tolist() == fed.length.tolist()
        score = case.judge.score(case.tree, reading, case.config)
        for b in range(4):
            np.testing.assert_allclose(score[b], wants[b][lengths[b] - 1], rtol=0, atol=case.allowed)


def test_fresh_rows_begin_anew(case):
    """A row's place goes on with another row of the same prompt: nothing of the first is left."""
    read = jax.jit(functools.partial(case.judge.read, config=case.config, chunk=3))
    reading = read(case.tree, case.prefix, case.judge.start(case.config, 4, case.tokens.shape[1]), case.fed())
    rows = [1, 1, 3, 3]
    reading = case.judge.begin(reading, jnp.array([True, False, True, False]))
    reading = read(case.tree, case.prefix, reading, case.fed(rows=rows))
    score = case.judge.score(case.tree, reading, case.config)
    for b, row in enumerate(rows):
        np.testing.assert_allclose(score[b], case.want(row)[-1], rtol=0, atol=case.allowed)


def test_forked_rows_read_on_from_their_parents(case):
    """Rows 0 and 1 share a prompt; row 1 becomes a copy of row 0 half-way."""
    read = jax.jit(functools.partial(case.judge.read, config=case.config, chunk=3))
    start = case.judge.start(case.config, 4, case.tokens.shape[1])
    reading = read(case.tree, case.prefix, start, case.fed([4, 2, 5, 3]))
    parent = [0, 0, 2, 3]
    fed = case.fed([7, 6, 5, 3], rows=parent)
    reading = read(case.tree, case.prefix, reading.fork(jnp.array(parent)), fed)
    score = case.judge.score(case.tree, reading, case.config)
    for b, (row, slot) in enumerate([(0, 6), (0, 5), (2, 4), (3, 2)]):
        np.testing.assert_allclose(score[b], case.want(row)[slot], rtol=0, atol=case.allowed)


def test_what_is_fed_of_a_head_is_the_head_of_what_is_fed(case):
    """Else a search would have to read anew what it has read."""
    whole = case.fed()
    for lengths in ([1, 2, 3, 4], [5, 6, 7, 8], [9, 10, 9, 10]):
        head = case.fed(lengths)
        for b in range(4):
            count = int(head.length[b])
            np.testing.assert_array_equal(head.tokens[b, :count], whole.tokens[b, :count])
            np.testing.assert_array_equal(head.marks[b, :count], whole.marks[b, :count])
            assert not head.marks[b, count:].any(), "a step is judged that has not ended"
            ends = sum(token in ENDS for token in case.tokens[b, 1 : lengths[b]].tolist())
            assert count == case.judge.reads(lengths[b], ends), "the count on the host is another"
            assert int(head.marks[b].sum()) == ends
    assert whole.tokens.shape[1] == case.judge.slots(case.tokens.shape[1])


def test_its_checkpoint_says_how_it_is_asked(case):
    metadata = {"kind": "prm", "model": to_dict(case.config), "verifier": formats.describe(case.judge)}
    model = model_of(case.tree, metadata)
    assert (model.config, model.judge) == (case.config, case.judge)


def test_every_format_is_a_verifier():
    for kind in formats.FORMATS:
        assert issubclass(formats.load(kind), base.Verifier), kind
        assert dataclasses.is_dataclass(formats.load(kind)), kind


@pytest.mark.parametrize("likelihood", [False, True])
def test_checkpoints_of_earlier_versions_have_value_heads(likelihood):
    shape = {**to_dict(PLAIN), "value_likelihood": likelihood}
    for kind in ("prm", "orm", "base_orm"):
        model = model_of({}, {"kind": kind, "model": shape})
        assert (model.config, model.judge) == (PLAIN, ValueHead(likelihood=likelihood))
    assert from_dict(ModelConfig, shape) == PLAIN
    assert model_of({}, {"kind": "policy", "model": {**shape, "value_likelihood": False}}).judge is None


@pytest.mark.parametrize(
    ("entry", "says"),
    [
        ({"kind": "oracle", "settings": {}}, "unknown kind of verifier 'oracle'; known: value_head, token_pair"),
        ({"kind": "value_head", "settings": {"marks": 3}}, "unknown config key marks"),
        ({"kind": "value_head"}, "does not say how its verifier is asked"),
        ([1], "does not say how its verifier is asked"),
    ],
)
def test_metadata_of_another_verifier_is_refused_in_a_line(entry, says):
    with pytest.raises(UserError, match=says) as raised:
        formats.read({"kind": "prm", "verifier": entry})
    assert "\n" not in str(raised.value)


def test_a_token_that_the_verifier_does_not_know_is_refused():
    for judge in (TokenPair(3, 30), TokenPair(99, 3), TokenPair(3, 4, (-2,))):
        with pytest.raises(UserError, match=r"token (30|99|-2) of the verifier is not in its vocabulary of 30"):
            judge.check(PLAIN, PLAIN)
    TokenPair(0, 29, (STEP_END, 0)).check(PLAIN, PLAIN)


def test_a_verifier_of_another_vocabulary_is_refused():
    wider = dataclasses.replace(PLAIN, vocab_size=31)
    for judge in (ValueHead(), TokenPair(3, 4)):
        with pytest.raises(UserError, match="a vocabulary of 31 ids and the policy one of 30: take a verifier"):
            judge.check(wider, PLAIN)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"good": 3, "bad": 3}, "both token 3"),
        ({"marks": (STEP_END, 5), "at": 2}, r"at \(2\) must be a place in marks, from 0 to 1"),
        ({"marks": ()}, "must be a place in marks"),
        ({"template": "Judge this."}, "must hold {prompt}"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, says):
    with pytest.raises(ConfigError, match=says):
        TokenPair(**{"good": 3, "bad": 4} | settings)


def test_values_at_marks_are_gathered_in_order():
    values = jnp.array([[0.1, 0.2, 0.3, 0.4], [0.5, 0.6, 0.7, 0.8]])
    marks = jnp.array([[False, True, False, True], [False, False, True, True]])
    got = base.at_marks(values, marks, 3)
    np.testing.assert_array_equal(got, np.array([[0.2, 0.4, 0.0], [0.7, 0.8, 0.0]], np.float32))
    np.testing.assert_array_equal(base.at_marks(values, marks, 1), np.array([[0.2], [0.7]], np.float32))
