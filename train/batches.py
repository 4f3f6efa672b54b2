"""From texts to batches: token examples, rows packed from several of them, grain iterators over the rows."""

from __future__ import annotations

import logging
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsIndex, runtime_checkable

import grain
import numpy as np

from ttcjax.runtime.errors import UserError
from ttcjax.search.context import Context
from ttcjax.text.prompt import encode_prompts, restated
from ttcjax.text.steps import LINES, StepFormat
from ttcjax.text.tokenizer import Tokenizer

logger = logging.getLogger(__name__)

TokenExample = Mapping[str, np.ndarray]
"""Arrays of equal length `[t]`; `tokens` is one of them."""
Batch = dict[str, np.ndarray]
"""Arrays `[B, T]`: those of the examples, `segment_ids` (from 1; 0 is padding) and `positions`."""

_EPOCHS = 2**31  # For ever; without a number grain's own length overflows for batches of one row.


@runtime_checkable
class BatchIterator(Protocol):
    """An endless iterator whose place can be written to JSON and found again."""

    def __next__(self) -> Batch: ...

    def get_state(self) -> dict[str, Any]: ...

    def set_state(self, state: dict[str, Any]) -> None: ...


def policy_examples(
    pairs: Iterable[tuple[str, str]], tokenizer: Tokenizer, *, prompt_weight: float = 0.0
) -> list[TokenExample]:
    """Turn (prompt, solution) texts into examples of next-token prediction.

    Args:
        pairs: Texts; a prompt ends with a newline, a solution does not.
        tokenizer: Encodes both.
        prompt_weight: Loss weight of prompt tokens; solution tokens and the end mark weigh 1.

    Returns:
        Examples with `tokens`, `targets` (the token after each) and `weights`.
    """
    prompts, solutions = _encoded(pairs, tokenizer)
    examples = []
    for prompt, solution in zip(prompts, solutions, strict=True):
        ids = np.asarray([*prompt, *solution, tokenizer.eos_id], np.int32)
        weights = np.ones(len(ids) - 1, np.float32)
        weights[: max(0, len(prompt) - 1)] = prompt_weight
        examples.append({"tokens": ids[:-1], "targets": ids[1:], "weights": weights})
    return examples


def revision_examples(
    rows: Iterable[tuple[str, Sequence[str], str]],
    context: Context,
    tokenizer: Tokenizer,
    seq_len: int,
) -> list[TokenExample]:
    """Turn trajectories into examples of next-token prediction, with the loss on the target alone.

    Args:
        rows: (prompt, answers in view, target).
        context: Puts answers in view.
        tokenizer: Encodes prompts.
        seq_len: Where an example is longer, its first answers are left out, as they are when a model revises.

    Returns:
        Examples with `tokens`, `targets` (the token after each) and `weights`: 1 on the target and its end mark.
    """
    rows = list(rows)
    prompts = encode_prompts(tokenizer, [prompt for prompt, _, _ in rows])
    examples = []
    for prompt, (_, answers, target) in zip(prompts, rows, strict=True):
        [last] = context.encode([target])
        again = tuple(restated(tokenizer, prompt))
        # The last end mark is predicted only.
        shown = context.view(again, answers, seq_len + 1 - len(prompt) - len(last)).tokens
        ids = np.asarray([*prompt, *shown, *last], np.int32)
        weights = np.zeros(len(ids) - 1, np.float32)
        weights[-len(last) :] = 1.0
        examples.append({"tokens": ids[:-1], "targets": ids[1:], "weights": weights})
    return examples


def warn_of_cuts(context: Context, examples: int, setting: str) -> None:
    """Say so where examples have fewer answers in view than they might.

    Args:
        context: What made the examples.
        examples: Their number.
        setting: The one that gives them room.
    """
    if context.cut:
        logger.warning("%d of %d examples have answers cut from view: raise --%s", context.cut, examples, setting)


def prm_examples(
    rows: Iterable[tuple[str, str, Sequence[float]]], tokenizer: Tokenizer, steps: StepFormat = LINES
) -> list[TokenExample]:
    """Turn labelled solutions into examples of step classification.

    Args:
        rows: (prompt, solution, one label in [0, 1] for each step).
        tokenizer: Encodes the texts.
        steps: The task's; says which tokens end a step.

    Returns:
        Examples with `tokens`, `labels`, `weights`, `solution` and `right`; labels stand at step ends, where
        the weight is 1; `solution` is 1, and `right` the last step's label, on the solution's tokens.

    Raises:
        UserError: No row has as many step ends as labels. Single rows of that kind are left out, with a warning.
    """
    rows = list(rows)
    prompts, solutions = _encoded(((prompt, solution) for prompt, solution, _ in rows), tokenizer)
    marks = steps.marks(tokenizer)
    examples = []
    for prompt, sampled, (_, _, values) in zip(prompts, solutions, rows, strict=True):
        ids = np.asarray([*prompt, *sampled, tokenizer.eos_id], np.int32)
        ends = marks.ends(ids, len(prompt))
        if len(ends) != len(values):
            continue
        labels, weights = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32)
        labels[ends], weights[ends] = values, 1.0
        solution = (np.arange(len(ids)) >= len(prompt)).astype(np.int32)
        right = (solution * np.float32(values[-1])).astype(np.float32)
        examples.append({"tokens": ids, "labels": labels, "weights": weights, "solution": solution, "right": right})
    if rows and not examples:
        raise UserError("no labelled solution has as many steps as labels: make the labels again with this tokenizer")
    if len(examples) < len(rows):
        logger.warning(
            "left out %d of %d labelled solutions whose steps and labels differ in number",
            len(rows) - len(examples),
            len(rows),
        )
    return examples


@dataclass(frozen=True)
class JudgedAnswer:
    """An answer, those before it in its chain, and whether it is right."""

    question: str
    prompt: str
    before: tuple[str, ...]
    answer: str
    correct: bool


def orm_examples(
    rows: Sequence[JudgedAnswer],
    context: Context,
    tokenizer: Tokenizer,
    seq_len: int,
    *,
    every_step: bool = False,
    steps: StepFormat = LINES,
) -> list[TokenExample]:
    """Turn judged answers into examples of classification.

    Args:
        rows: Answers with their labels.
        context: Puts the answers before in view.
        tokenizer: Encodes prompts.
        seq_len: Where an example is longer, its first answers are left out.
        every_step: Label all step ends of an answer, not its end alone.
        steps: The task's; says which tokens end a step.

    Returns:
        Examples as those of `prm_examples`.
    """
    prompts, marks = encode_prompts(tokenizer, [row.prompt for row in rows]), steps.marks(tokenizer)
    examples = []
    for prompt, row in zip(prompts, rows, strict=True):
        [tokens] = context.encode([row.answer])
        again = tuple(restated(tokenizer, prompt))
        shown = context.view(again, row.before, seq_len - len(prompt) - len(tokens)).tokens
        ids = np.asarray([*prompt, *shown, *tokens], np.int32)
        begin = len(ids) - len(tokens)
        ends = marks.ends(ids, begin)
        labels, weights = np.zeros(len(ids), np.float32), np.zeros(len(ids), np.float32)
        judged = ends if every_step else ends[-1:]
        labels[judged], weights[judged] = row.correct, 1.0
        solution = (np.arange(len(ids)) >= begin).astype(np.int32)
        right = (solution * np.float32(row.correct)).astype(np.float32)
        examples.append({"tokens": ids, "labels": labels, "weights": weights, "solution": solution, "right": right})
    return examples


def _encoded(pairs: Iterable[tuple[str, str]], tokenizer: Tokenizer) -> tuple[list[list[int]], list[list[int]]]:
    pairs = list(pairs)
    return encode_prompts(tokenizer, [p for p, _ in pairs]), tokenizer.encode_batch([s for _, s in pairs])


class PackedRows:
    """Rows of `seq_len` tokens, each holding whole examples: a random-access source for grain.

    Best-fit packing, longest examples first: an example goes to the fullest row that still holds it. Which
    examples share a row is the same in every epoch; no token sees another example, so that only the make-up of
    batches depends on it, and rows are drawn in a new order each epoch.

    Args:
        examples: Token examples, all with the same keys.
        seq_len: T.

    Raises:
        UserError: Every example is longer than `seq_len`. Single ones are left out, with a warning.
    """

    def __init__(self, examples: Sequence[TokenExample], seq_len: int):
        if not examples:
            raise UserError("there are no training examples: the data set or the labels are empty")
        lengths = np.array([len(e["tokens"]) for e in examples])
        fitting = np.flatnonzero(lengths <= seq_len)
        if not len(fitting):
            raise UserError(
                f"all {len(examples)} examples are longer than seq_len={seq_len} tokens: "
                f"raise seq_len (the shortest has {lengths.min()} tokens)"
            )
        if len(fitting) < len(examples):
            logger.warning(
                "left out %d of %d examples longer than seq_len=%d tokens",
                len(examples) - len(fitting),
                len(examples),
                seq_len,
            )
        rows = _best_fit(lengths, fitting[np.argsort(-lengths[fitting], kind="stable")], seq_len)
        order = [i for row in rows for i in row]
        # In row order, so that a row is one slice of each array.
        self._flat = {key: np.concatenate([examples[i][key] for i in order]) for key in examples[0]}
        self._flat["segment_ids"] = np.concatenate(
            [np.repeat(np.arange(1, len(row) + 1, dtype=np.int32), lengths[row]) for row in rows]
        )
        self._flat["positions"] = np.concatenate([np.arange(lengths[i], dtype=np.int32) for i in order])
        self._starts = np.concatenate([[0], np.cumsum([lengths[row].sum() for row in rows])])
        self._seq_len = seq_len

    def __len__(self) -> int:
        return len(self._starts) - 1

    def __getitem__(self, index: SupportsIndex) -> Batch:
        row = operator.index(index)
        start, end = self._starts[row], self._starts[row + 1]
        padded = {}
        for key, values in self._flat.items():
            padded[key] = np.zeros(self._seq_len, values.dtype)
            padded[key][: end - start] = values[start:end]
        return padded

    def __repr__(self) -> str:
        return f"PackedRows({len(self)} rows of {self._seq_len} tokens)"


def _best_fit(lengths: np.ndarray, order: np.ndarray, seq_len: int) -> list[list[int]]:
    """Return the examples of each row; `order` is the order in which they are placed."""
    rows: list[list[int]] = []
    with_space: dict[int, list[int]] = {}
    spaces = 0  # Bit s is set where some row has room for exactly s tokens.
    for example in order.tolist():
        length = int(lengths[example])
        roomy = spaces >> length
        if roomy:
            space = length + (roomy & -roomy).bit_length() - 1
            row = with_space[space].pop()
            if not with_space[space]:
                spaces &= ~(1 << space)
            rows[row].append(example)
        else:
            space, row = seq_len, len(rows)
            rows.append([example])
        with_space.setdefault(space - length, []).append(row)
        spaces |= 1 << (space - length)
    return rows


def train_batches(
    examples: Sequence[TokenExample], *, batch_size: int, seq_len: int, seed: int
) -> grain.DatasetIterator[Batch]:
    """Return an endless iterator over batches, its order decided by `seed` alone.

    Every epoch holds each row once, in a new order; batches run on over the end of an epoch. Where several processes
    train together each draws all rows, of which its devices take theirs: rows are cheap, and no number of processes
    then changes what stands where in a batch, nor the place that a checkpoint keeps.

    Raises:
        UserError: Every example is longer than `seq_len`.
    """
    rows = grain.MapDataset.source(PackedRows(examples, seq_len)).shuffle(seed=seed % 2**32).repeat(_EPOCHS)
    # Rows are slices of arrays in memory: a batch takes 2 ms, which passes while the device is at work.
    return iter(rows.batch(batch_size).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)))


def valid_batches(examples: Sequence[TokenExample], *, batch_size: int, seq_len: int) -> list[Batch]:
    """Return one pass over the examples in a fixed order; rows of padding fill the last batch.

    Raises:
        UserError: Every example is longer than `seq_len`.
    """
    rows = PackedRows(examples, seq_len)
    batches = []
    for start in range(0, len(rows), batch_size):
        taken = [rows[i] for i in range(start, min(start + batch_size, len(rows)))]
        batches.append(pad_rows({key: np.stack([row[key] for row in taken]) for key in taken[0]}, batch_size))
    return batches


def pad_rows(batch: Batch, multiple: int) -> Batch:
    """Return a batch with rows of zeros after its own, whose weights are 0 too, up to a multiple of so many rows."""
    rows = len(next(iter(batch.values())))
    missing = -rows % multiple
    if not missing:
        return batch
    return {key: np.pad(x, ((0, missing), *[(0, 0)] * (x.ndim - 1))) for key, x in batch.items()}
