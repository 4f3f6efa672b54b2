"""Training texts of a policy that hold several drafts of an answer, some of which fail.

They have the form that a revision model sees (`search.context`): the question, the attempts, each with its end mark,
the question again where it is restated, and the next answer.
"""

from __future__ import annotations

import itertools
import logging
import random
from collections.abc import Iterable, Sequence

import numpy as np

from ttcjax.config import DraftsConfig
from ttcjax.data.task import Draft, Example, Task
from ttcjax.text.prompt import encode_prompts, restated
from ttcjax.text.steps import StepFormat
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.train.batches import TokenExample, policy_examples

logger = logging.getLogger(__name__)

_Piece = tuple[str, float]
"""A text, and the loss weight of its tokens."""


def policy_texts(task: Task, example: Example, config: DraftsConfig) -> tuple[list[list[_Piece]], list[_Piece]]:
    """Return the attempts in view and the answer that a training text of one question has; the seed decides which.

    Args:
        task: Puts questions and writes attempts that fail.
        example: The question with its right solution.
        config: Shares and seed.

    Returns:
        Attempts and an answer, in pieces.
    """
    rng = random.Random(f"{config.seed}/{example.id}")
    shown = rng.randint(1, config.most) if rng.random() < config.several else 0
    fails = rng.random() < config.failing
    kept = rng.randint(1, shown) if shown and not fails and rng.random() < config.kept else 0
    right: list[_Piece] = [(example.solution, 1.0)]
    if not shown and not fails:
        return [], right
    failed = [_attempt(draft, task.steps) for draft in task.failing(example, shown - kept + max(fails, kept > 0), rng)]
    if not failed:
        return [], right  # A data set, or a subject, that writes no attempts.
    if fails and failed[-1][-1][1]:
        return failed[:-1], failed[-1]
    if fails:
        return failed[:shown], right  # Of an attempt without a line that counts nothing is learned.
    return [*failed[: shown - kept], *[[(example.solution, 0.0)]] * kept], right


def _attempt(draft: Draft, steps: StepFormat) -> list[_Piece]:
    """Return an attempt that fails in pieces: no loss on what it chooses, since that is not to be learned from."""
    if draft.commits == len(draft.lines):
        return [(steps.join(draft.lines), 0.0)]
    chosen = "".join(line + steps.separator for line in draft.lines[: draft.commits])
    return [(chosen, 0.0), (steps.join(draft.lines[draft.commits :]), 1.0)]


def draft_examples(
    task: Task, examples: Iterable[Example], config: DraftsConfig, tokenizer: Tokenizer, seq_len: int
) -> list[TokenExample]:
    """Turn questions into examples of next-token prediction, some with several drafts.

    Args:
        task: As for `policy_texts`.
        examples: The questions.
        config: As for `policy_texts`.
        tokenizer: Encodes all texts. No piece of it may cross the separator of steps.
        seq_len: Where an example is longer, its first attempts are left out, as they are when a model revises.

    Returns:
        Examples with `tokens`, `targets` (the token after each) and `weights`: 0 on a question and on what attempts
        that fail choose, `config.again` on a question put again, 1 on the rest; where attempts are in view that are
        right, 0 on them.
    """
    examples = list(examples)
    if not config.failing and not config.several:
        return policy_examples(((task.prompt(e.question), e.solution) for e in examples), tokenizer)
    prompts = encode_prompts(tokenizer, [task.prompt(example.question) for example in examples])
    texts = [policy_texts(task, example, config) for example in examples]
    wanted = {text for views, last in texts for pieces in (*views, last) for text, _ in pieces}
    known = dict(zip(sorted(wanted), tokenizer.encode_batch(sorted(wanted)), strict=True))

    def written(pieces: Sequence[_Piece]) -> tuple[list[int], list[float]]:
        ids = [known[text] for text, _ in pieces]
        weights = [[weight] * len(own) for own, (_, weight) in zip(ids, pieces, strict=True)]
        return [*itertools.chain(*ids), tokenizer.eos_id], [*itertools.chain(*weights), pieces[-1][1]]

    found, cut, several = [], 0, 0
    for prompt, (views, last) in zip(prompts, texts, strict=True):
        shown, target = [written(pieces) for pieces in views], written(last)
        again = restated(tokenizer, prompt) if config.restate else []
        # The last end mark is predicted only.
        room = seq_len + 1 - len(prompt) - len(target[0]) - len(again)
        several += bool(shown)
        cut += sum(len(ids) for ids, _ in shown) > room
        while shown and sum(len(ids) for ids, _ in shown) > room:
            shown.pop(0)
        parts = [*shown, (again, [config.again] * len(again))] if shown else []
        ids = np.asarray([*prompt, *itertools.chain(*(p[0] for p in parts)), *target[0]], np.int32)
        weights = [[0.0] * max(0, len(prompt) - 1), *(p[1] for p in parts), target[1]]
        found.append(
            {"tokens": ids[:-1], "targets": ids[1:], "weights": np.asarray([*itertools.chain(*weights)], np.float32)}
        )
    if cut:
        text = "%d of %d texts with attempts have not all of them: policy.seq_len has room for %d tokens"
        logger.warning(text, cut, several, seq_len)
    return found
