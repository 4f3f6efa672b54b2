"""Training texts of several drafts: they look as what a revision model sees, and the loss is where it should be."""

import numpy as np
import pytest

from ttcjax.config import ConfigError, DraftsConfig, ExperimentConfig, RevisionConfig, TokenizerConfig
from ttcjax.data.procmath import TASK, generate
from ttcjax.data.procmath.search import FAMILIES
from ttcjax.search.context import Context
from ttcjax.text import tokenizer as tokenizers
from ttcjax.train.batches import policy_examples, revision_examples
from ttcjax.train.drafts import draft_examples, policy_texts

SEVERAL = DraftsConfig(failing=0.3, several=0.7, kept=0.4, most=3)


@pytest.fixture(scope="module")
def examples():
    return list(generate("train", 260, seed=4))


@pytest.fixture(scope="module")
def searches():
    return list(generate("train", 3000, 5, ["doors", "subset"]))


@pytest.fixture(scope="module")
def tokenizer(examples):
    texts = (f"{e.question}\n{e.solution}" for e in examples)
    return tokenizers.train(texts, TokenizerConfig(vocab_size=512, number_pieces=100))


def text_of(pieces):
    return "".join(text for text, _ in pieces)


@pytest.mark.parametrize("restate", [False, True])
def test_a_text_looks_as_what_a_revision_model_sees(examples, tokenizer, restate):
    config = DraftsConfig(failing=0.3, several=0.7, kept=0.4, most=3, restate=restate)
    found = draft_examples(TASK, examples, config, tokenizer, 1000)
    rows = []
    for example in examples:
        shown, last = policy_texts(TASK, example, config)
        rows.append((TASK.prompt(example.question), [text_of(pieces) for pieces in shown], text_of(last)))
    expected = revision_examples(rows, Context(tokenizer, 3, restate=restate), tokenizer, 1000)
    assert sum(bool(shown) for _, shown, _ in rows) > 50
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one["tokens"], other["tokens"])
        np.testing.assert_array_equal(one["targets"], other["targets"])


def test_no_room_takes_the_first_attempts_out_of_view(searches, tokenizer, caplog):
    some = [e for e in searches[:200] if policy_texts(TASK, e, SEVERAL)[0]]
    whole = draft_examples(TASK, some, SEVERAL, tokenizer, 1000)
    limit = max(len(e["tokens"]) for e in whole) // 2
    cut = draft_examples(TASK, some, SEVERAL, tokenizer, limit)
    shorter = 0
    for one, other, example in zip(whole, cut, some, strict=True):
        shorter += len(other["tokens"]) < len(one["tokens"])
        fits = len(one["tokens"]) <= limit
        assert (len(other["tokens"]) == len(one["tokens"])) == fits or len(other["tokens"]) <= limit
        # The question again and the last draft are always there.
        tail = tokenizer.encode(text_of(policy_texts(TASK, example, SEVERAL)[1]))
        assert other["targets"][-len(tail) - 1 : -1].tolist() == tail
    assert shorter > 20
    assert (
        f"{shorter} of {len(some)} texts with attempts have not all of them: policy.seq_len has room for" in caplog.text
    )


def test_without_drafts_examples_are_those_of_single_solutions(examples, tokenizer):
    # A share of none but in name, so that the same code makes the texts.
    found = draft_examples(TASK, examples, DraftsConfig(several=1e-12), tokenizer, 100)
    assert len(draft_examples(TASK, examples, DraftsConfig(), tokenizer, 100)) == len(found)
    pairs = ((TASK.prompt(e.question), e.solution) for e in examples)
    for one, other in zip(found, policy_examples(pairs, tokenizer), strict=True):
        assert one.keys() == other.keys()
        for key in one:
            np.testing.assert_array_equal(one[key], other[key])


def test_the_loss_is_on_what_follows_and_on_right_choices(examples, tokenizer):
    """Read back from the tokens: which lines of every draft have a loss."""
    config = DraftsConfig(failing=0.4, several=0.8, kept=0.5, most=3, restate=True)
    seen = set()
    for example, row in zip(examples, draft_examples(TASK, examples, config, tokenizer, 1000), strict=True):
        ends = np.flatnonzero(row["targets"] == tokenizer.eos_id)
        begins = [len(tokenizer.encode(TASK.prompt(example.question))), *(ends[:-1] + 1)]
        for place, (begin, end) in enumerate(zip(begins, ends, strict=True)):
            last = place == len(ends) - 1
            if last and place:
                begin += len(tokenizer.encode(TASK.prompt(example.question)))
            weights = row["weights"][begin : end + 1]
            lines = tokenizer.decode(row["targets"][begin:end]).split("\n")
            choices = _choices(example, lines)
            right = lines[-1] == f"Answer: {example.answer}"
            if right:
                assert weights.tolist() == [float(last)] * len(weights), (lines, weights)
            elif example.subject not in FAMILIES:
                assert not last, "a derivation with a slip is no answer to end with"
                assert not weights.any(), (lines, weights)
            else:
                assert "\n".join(lines).count(" no") == 1
                chosen = len(tokenizer.encode("".join(line + "\n" for line in lines[:choices])))
                assert weights.tolist() == [0.0] * chosen + [1.0] * (len(weights) - chosen), (lines, weights)
            seen.add((right, last, place > 0))
        assert not row["weights"][: begins[0]].any(), "a loss on the question"
    assert seen == {(True, True, False), (True, True, True), (False, True, False), (False, True, True)} | {
        (True, False, False),
        (True, False, True),
        (False, False, False),
        (False, False, True),
    }


def _choices(example, lines):
    """How many lines of an attempt are chosen, by their look."""
    if example.subject in ("pair", "residue", "coins", "doors"):
        return 1
    return sum("+" in line or "*" in line for line in lines)


def test_shares_are_those_of_the_settings(searches):
    """z-tests at a false-alarm rate of 1e-3 each."""
    found = [policy_texts(TASK, e, SEVERAL) for e in searches]
    right = [text_of(last) == e.solution for e, (_, last) in zip(searches, found, strict=True)]
    several = [bool(shown) for shown, _ in found]
    some = [text_of(shown[-1]) == text_of(last) for ok, (shown, last) in zip(right, found, strict=True) if ok and shown]
    # Doors of the first level have one wrong way: what asks for two attempts that fail gets one.
    for hits, share in ((several, 0.7), (some, 0.4)):
        assert abs(np.mean(hits) - share) < 3.3 * (share * (1 - share) / len(hits)) ** 0.5 + 0.03, (
            np.mean(hits),
            share,
        )
    assert abs(np.mean(right) - 0.7) < 3.3 * (0.21 / len(right)) ** 0.5


def test_the_same_seed_gives_the_same_texts_in_any_company(examples):
    alone = policy_texts(TASK, examples[40], SEVERAL)
    assert alone == [policy_texts(TASK, e, SEVERAL) for e in examples][40]
    other = DraftsConfig(failing=0.3, several=0.7, kept=0.4, most=3, seed=8)
    assert [policy_texts(TASK, e, SEVERAL) for e in examples] != [policy_texts(TASK, e, other) for e in examples]


def test_derivations_end_with_their_one_solution(examples):
    """Also where a draft that fails was due: from one with a slip nothing is learned."""
    shown = 0
    for example in examples:
        if example.subject not in FAMILIES:
            attempts, last = policy_texts(TASK, example, SEVERAL)
            assert last == [(example.solution, 1.0)]
            assert not any(weight for pieces in attempts for _, weight in pieces)
            shown += bool(attempts)
    assert shown > 50


def test_what_policy_and_revision_model_read_must_agree():
    with pytest.raises(ConfigError, match=r"drafts\.restate \(True\) must be revision\.restate \(False\)"):
        ExperimentConfig(drafts=DraftsConfig(several=0.5), revision=RevisionConfig(enabled=True, restate=False))
    with pytest.raises(ConfigError, match=r"drafts\.kept \(0\.4\) is a share of texts with several drafts"):
        DraftsConfig(kept=0.4)
    with pytest.raises(ConfigError, match=r"drafts\.kept must lie in \[0, 1\], not 2"):
        DraftsConfig(kept=2.0)
