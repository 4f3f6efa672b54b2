"""Steps: where they end in tokens, on the host and on the device, is where they end in the text."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ttcjax.config import TokenizerConfig
from ttcjax.runtime.errors import UserError
from ttcjax.text import automaton, tokenizer
from ttcjax.text.prompt import question_prompt
from ttcjax.text.step_marks import StepMarks
from ttcjax.text.steps import LINES, StepFormat

TOKENIZER = tokenizer.train(["a b\nx = 3\n\nStep 12: so\nAnswer: 4"], TokenizerConfig(vocab_size=400))
FORMATS = {
    "lines": LINES,
    "blank lines": StepFormat("\n\n"),
    "a word": StepFormat("Step"),
    "a mark of many bytes": StepFormat("\u25b6\n"),
    "a mark that overlaps itself": StepFormat("abab"),
    "a mark of one piece": StepFormat.of_token(TOKENIZER, TOKENIZER.encode("Answer")[0]),
    "a heading": StepFormat("\nStep 1: ", pattern=r"\nStep \d+: "),
    "a line of any text": StepFormat("\n#\n", pattern=r"\n#.*\n"),
    "blanks between blank lines": StepFormat("\n\n", pattern=r"\n[ \t]*\n"),
    "alternatives": StepFormat("so", pattern="so|a{2,3}b|\u25b6(: |\\n)"),
}
SLOTS = 20
WORDS = ["\n", "\n\n", "a", "ab", "b", " ", "\t", "Step ", "1", "2", ": ", "#", "so", "x", "\u25b6", "\u00e9", "Answer"]
TOKENS = st.lists(
    st.one_of(
        st.integers(0, TOKENIZER.vocab_size + 2),
        st.sampled_from([i for word in WORDS for i in TOKENIZER.encode(word)]),
        st.sampled_from([i for i in range(TOKENIZER.vocab_size) if len(TOKENIZER.pieces[i]) == 1]),
    ),
    max_size=16,
)


def python_pattern(steps: StepFormat) -> re.Pattern[str]:
    """The format's separators for Python, whose dot before `*` and the like reads characters too."""
    return re.compile(re.escape(steps.separator) if steps.pattern is None else steps.pattern, re.ASCII)


def ends_in_text(steps: StepFormat, text: str) -> list[int]:
    """Return after how many characters steps end, tried at every character: no automaton, no bytes."""
    pattern, begin, found = python_pattern(steps), 0, []
    for end in range(1, len(text) + 1):
        if any(pattern.fullmatch(text, start, end) for start in range(begin, end)):
            found.append(end)
            begin = end
    return found


def ends_in_tokens(steps: StepFormat, tokens: list[int]) -> list[int]:
    """Return the tokens that end a step: those with which the whole text has a step end more.

    A text is looked at as far as no later token changes it: the bytes of a character that is not whole yet, or never
    will be, are none of a separator.
    """
    found, before = [], 0
    for i in range(len(tokens)):
        count = len(ends_in_text(steps, TOKENIZER.decode(tokens[: i + 1])))
        if count > before:
            found.append(i)
        before = count
    return found


@functools.cache
def on_device(steps: StepFormat):
    marks = steps.marks(TOKENIZER)
    return jax.jit(lambda tokens, begin, length: marks.ends_of_rows(tokens, begin, length))


@pytest.mark.parametrize("steps", FORMATS.values(), ids=FORMATS)
@settings(deadline=None)
@given(tokens=TOKENS)
def test_marks_agree_with_splitting_the_text(steps, tokens):
    """Random tokens of a real tokenizer: half characters, ids without text, and ids out of the vocabulary too."""
    tokens = [t for t in tokens if t not in TOKENIZER.stop_ids]
    want = ends_in_tokens(steps, tokens)
    assert steps.marks(TOKENIZER).ends(tokens) == want, "on the host"
    # Newlines before and after the row, which end nothing.
    row = np.full((1, SLOTS), TOKENIZER.encode("\n")[0], np.int32)
    row[0, 2 : 2 + len(tokens)] = tokens
    begin, length = jnp.array([2]), jnp.array([2 + len(tokens)])
    got = np.flatnonzero(on_device(steps)(jnp.asarray(row), begin, length)[0]) - 2
    assert got.tolist() == want, "on the device"
    text = TOKENIZER.decode(tokens)
    parts = steps.split(text)
    assert len(parts) == 1 + len(ends_in_text(steps, text))
    if steps.pattern is None:
        assert steps.join(parts) == text


@functools.cache
def token_by_token(steps: StepFormat):
    marks = steps.marks(TOKENIZER)
    return jax.jit(lambda tokens: jax.lax.scan(marks.step, jnp.zeros((1,), jnp.int32), tokens[:, None])[1][:, 0])


@pytest.mark.parametrize("steps", FORMATS.values(), ids=FORMATS)
@settings(deadline=None)
@given(tokens=TOKENS)
def test_a_row_read_token_by_token_is_marked_as_it_is_when_read_whole(steps, tokens):
    """As sampling does it; a stop token ends the last step, and what follows begins anew."""
    both = [*tokens, TOKENIZER.eos_id, *tokens]
    row = np.full(2 * SLOTS, TOKENIZER.bos_id, np.int32)
    row[: len(both)] = both
    found = np.flatnonzero(token_by_token(steps)(jnp.asarray(row))).tolist()
    assert found == steps.marks(TOKENIZER).ends(both)
    assert len(tokens) in found, "the stop token ended no step"


@given(st.text(alphabet="ab \n", max_size=30))
def test_steps_join_back_and_each_has_one_end_token(solution):
    parts = LINES.split(solution)
    assert LINES.join(parts) == solution
    row = [*TOKENIZER.encode(solution), TOKENIZER.eos_id]
    ends = LINES.marks(TOKENIZER).ends(row)
    assert len(ends) == len(parts), "a solution of k lines has k step-end tokens"
    starts = [0, *(end + 1 for end in ends[:-1])]
    texts = [TOKENIZER.decode(row[a:b]) for a, b in zip(starts, ends, strict=True)]
    assert texts == parts, "the tokens between two ends are exactly one step"


def test_newlines_of_the_prompt_end_no_step():
    prompt = [TOKENIZER.bos_id, *TOKENIZER.encode(question_prompt("a\nb"))]
    row = [*prompt, *TOKENIZER.encode("x = 3\nAnswer: 4"), TOKENIZER.eos_id]
    ends = LINES.marks(TOKENIZER).ends(row, begin=len(prompt))
    assert min(ends) >= len(prompt)
    assert len(ends) == 2
    assert ends[-1] == len(row) - 1


def test_a_separator_does_not_reach_back_into_the_prompt():
    marks = StepFormat("\n\n").marks(TOKENIZER)
    newline = TOKENIZER.encode("\n")[0]
    assert marks.ends([newline] * 4) == [1, 3]
    assert marks.ends([newline] * 4, 1) == [2]


@pytest.mark.parametrize("lengths", [0, 3, np.array([0, 4, 7])])
def test_marks_of_a_batch_are_those_of_its_rows(lengths):
    tokens = np.random.default_rng(0).integers(0, 6, (3, 7)).astype(np.int32)
    marks = StepMarks.of_ids((2,), (4,))
    rows = np.broadcast_to(lengths, 3).astype(np.int32)
    got = marks.ends_of_rows(jnp.asarray(tokens), jnp.asarray(rows), jnp.full((3,), 7))
    for b in range(3):
        expected = [t >= rows[b] and tokens[b, t] in (2, 4) for t in range(7)]
        assert got[b].tolist() == expected
        assert marks.ends(tokens[b], int(rows[b])) == np.flatnonzero(expected).tolist()


@pytest.mark.parametrize(
    ("steps", "text", "parts"),
    [
        (StepFormat("\n\n"), "a\n\n\nb\nc\n\n", ["a", "\nb\nc", ""]),
        (StepFormat("\nStep 1: ", pattern=r"\nStep \d+: "), "x\nStep 12: y\nStep a\nStep 3: ", ["x", "y\nStep a", ""]),
        (StepFormat("\n", pattern=r"\n+"), "a\n\nb", ["a", "", "b"]),
        (StepFormat("\n\n", pattern=r"\s*\n\n"), "a \n \n\nb", ["a", "b"]),
    ],
    ids=["blank lines", "headings", "as soon as it can", "blanks before"],
)
def test_splits_worked_out_by_hand(steps, text, parts):
    assert steps.split(text) == parts


def test_a_separator_that_single_tokens_complete_needs_no_memory():
    """So that most formats cost a program nothing but a comparison."""
    assert len(LINES.marks(TOKENIZER).moves) == 1
    assert len(StepFormat("\n\n").marks(TOKENIZER).moves) == 2


def test_formats_are_compared_by_what_they_say():
    assert StepFormat("\n") == LINES
    assert hash(StepFormat("\n").marks(TOKENIZER)) == hash(LINES.marks(TOKENIZER))
    assert StepFormat("\n\n").marks(TOKENIZER) != LINES.marks(TOKENIZER)


@pytest.mark.parametrize(
    ("separator", "pattern", "message"),
    [
        ("", None, "separator of steps is empty"),
        ("\n", r"\n\n", "is no match of the pattern"),
        ("\n\n", r"\n+", "is no match of the pattern"),  # The first newline is one already.
        ("x", r"^x", r"\^ is not known"),
        ("x", r"x|y*", "matches the empty text"),
        ("x", r"x(?=y)", r"only \(\?: is known"),
        ("x", r"x*?", "lazy"),
        ("x", r"(x)\1", r"\\1 is not known"),
        ("x", r"x.+", "may end with any character"),
        ("x", r"(x", "group is not closed"),
        ("x", r"x)", "there is no group"),
        ("x", r"*x", "nothing to repeat"),
        ("x", r"x{3", "is expected"),
        ("x", r"x{9,2}", "lower one first"),
        ("x", "[\u00e9]", "classes hold characters of ASCII"),
        ("x", r"[z-a]", "or down"),
        ("x", r"[x", "ends too early"),
        ("x", "x\ufffd", "damaged text"),
        ("x", r"((x{100}){100}){100}", "repeats within repeats"),
        ("x", r"x|a[ab]{9}c", "states"),
    ],
)
def test_what_cannot_separate_steps_is_refused(separator, pattern, message):
    with pytest.raises(UserError, match=message):
        StepFormat(separator, pattern)


def test_a_token_without_text_is_refused():
    with pytest.raises(UserError, match="has no text of its own"):
        StepFormat.of_token(TOKENIZER, TOKENIZER.begin_ids[0])


PIECES = st.sampled_from(["a", "b", "\\n", "[ab]", "[^a]", ".", "\\d", "\\W", "1", "\u25b6", "(?:ab|b)", "(a|b1)"])
PATTERNS = st.lists(
    st.tuples(PIECES, st.sampled_from(["", "", "", "*", "+", "?", "{2}", "{1,2}"])), min_size=1, max_size=4
)


@settings(deadline=None)
@given(
    st.lists(PATTERNS, min_size=1, max_size=2).map(lambda a: "|".join("".join(x + y for x, y in s) for s in a)),
    st.text(alphabet="ab1\n \u25b6", max_size=12),
)
def test_automata_find_what_python_finds(pattern, text):
    """All of the syntax, against Python's own matcher at every place, on texts of ASCII and a mark."""
    try:
        found = automaton.compile_pattern(pattern)
    except UserError as error:
        if "empty text" not in str(error) and "may end with any" not in str(error):
            raise
        return
    # Outside ASCII the dot and negated classes read what stands before * and + alone.
    ascii_only = re.sub(r"(\.|\[\^a\]|\\W)(?![*+])", lambda m: f"(?:(?=[\\x00-\\x7f]){m[1]})", pattern)
    theirs, begin, ends = re.compile(ascii_only, re.ASCII), 0, []
    for end in range(1, len(text) + 1):
        if any(theirs.fullmatch(text, start, end) for start in range(begin, end)):
            ends.append(len(text[:end].encode()))
            begin = end
    assert automaton.run(found, 0, text.encode())[1] == ends


def test_prompt_ends_in_one_newline():
    assert question_prompt("What is 1 + 1?") == "What is 1 + 1?\n"
