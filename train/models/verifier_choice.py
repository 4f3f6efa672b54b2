"""The choice of the verifier that selects among revisions, on chains of questions that no candidate was trained on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from etils import epath

from ttcjax.config import InView, SamplerConfig
from ttcjax.data.task import Task
from ttcjax.engine.engine import Engine, Model, Solution
from ttcjax.engine.loading import load_model, model_of
from ttcjax.runtime.checkpoint import load_params
from ttcjax.runtime.stage import Inputs
from ttcjax.search import revision_verifiers
from ttcjax.search.chains import Answer
from ttcjax.search.revision_verifiers import Judges
from ttcjax.text.tokenizer import Tokenizer
from ttcjax.verify.select import group_answers


def candidate(inputs: Inputs, out: epath.Path, tokenizer: Tokenizer, verifier: str) -> Model:
    """Load a verifier of revisions while the ORM stage is at work.

    Args:
        inputs: Has `prm`.
        out: Folder of the ORM stage, with the verifiers that it has trained.
        tokenizer: Of the models.
        verifier: One of `Judges.names`.
    """
    if verifier == "prm":
        return load_model(inputs, "prm", tokenizer)
    return model_of(*load_params(out / verifier / "best", tokenizer))


def judge(
    judges: Judges,
    sampler: SamplerConfig,
    view: InView,
    load: Callable[[str], Model],
    judged: Model,
    tokenizer: Tokenizer,
    task: Task,
    rows: Sequence[dict[str, Any]],
) -> dict[str, Any]:
    """Let every verifier of revisions select among the answers of some chains.

    Args:
        judges: The verifiers.
        sampler: Of the engine.
        view: What the revision model has in view.
        load: Returns the model of a candidate, by its name.
        judged: The revision model.
        tokenizer: Of all models.
        task: Reads answers.
        rows: Graded chains, rows of `attempts.SCHEMA`; as many of as many answers of each question, none of which a
            candidate was trained on.

    Returns:
        What `revision_verifiers.SELECTION` tells of.
    """
    by_question: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        by_question.setdefault(row["question"], []).append(row)
    questions = [sorted(group, key=lambda row: row["chain"]) for group in by_question.values()]
    chains = [[_written(tokenizer, row) for row in group] for group in questions]
    groups_QPS, correct_QPS = (np.array(values) for values in zip(*(_graded(task, g) for g in questions), strict=True))
    accuracy: dict[str, float] = {}
    for name in judges.names:
        engine = Engine(judged, tokenizer, sampler, verifier=load(name), steps=task.steps)
        prompts = [engine.encode_prompt(group[0]["question"], group[0]["prompt"]) for group in questions]
        scored = judges.reviser(engine, prompts, view, name).score(chains)
        scores_QPS = np.array([[[answer.score for answer in chain] for chain in group] for group in scored], np.float64)
        accuracy[name] = revision_verifiers.selection_accuracy(groups_QPS, correct_QPS, scores_QPS)
    return {"chosen": revision_verifiers.best(accuracy), "questions": len(questions), "accuracy": accuracy}


def _written(tokenizer: Tokenizer, row: dict[str, Any]) -> list[Answer]:
    """Return a chain as it was sampled; its texts are read into tokens again."""
    answers = []
    encoded = tokenizer.encode_batch(row["answers"])
    for text, ids, parsable in zip(row["answers"], encoded, row["parsable"], strict=True):
        # Whether one that cannot be read was cut off is not known, and makes no difference: it has no vote.
        answers.append(Answer(Solution((*ids, tokenizer.eos_id), text, finished=parsable, logprob=0.0), shown=0))
    return answers


def _graded(task: Task, group: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Return the answers of a question's chains as ids of groups of equal ones, `[P, S]`, and whether each is right."""
    texts = [(t, p) for row in group for t, p in zip(row["answers"], row["parsable"], strict=True)]
    ids = group_answers([task.extract(text) if parsable else None for text, parsable in texts])
    correct = np.array([row["correct"] for row in group])
    return ids.reshape(correct.shape), correct
