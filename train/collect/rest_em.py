"""Training data from the revision model's own trajectories: the ReST^EM variant (Snell et al. 2024, App. on ReST^EM).

The revision model answers training questions again and again until an answer is right; the policy is then fine-tuned
on those right answers with what came before them in view, trajectories of every length alike. In the paper a model
made this way loses accuracy as it revises: its mistakes are its own, and it learns from what goes with them by chance.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from ttcjax.config import InView, ReSTConfig
from ttcjax.data.task import Examples, Task
from ttcjax.engine.engine import Engine
from ttcjax.runtime.errors import UserError
from ttcjax.train.collect import attempts


def sample(
    settings: ReSTConfig, view: InView, engine: Engine, task: Task, questions: Examples, out: epath.Path
) -> list[dict[str, Any]]:
    """Sample trajectories that end at their first right answer; finished shards are kept.

    Args:
        settings: How many chains of how many answers.
        view: What the model has in view.
        engine: Its policy is a revision model.
        task: Grades.
        questions: Of training; the first ones are asked.
        out: Folder of the shards.

    Returns:
        Rows of `attempts.SCHEMA`.
    """
    return attempts.sample(
        engine,
        view,
        task,
        questions[: settings.questions],
        out,
        lengths=[settings.answers] * settings.chains,
        shard_questions=settings.shard_questions,
        seed=settings.seed,
        name="ReST^EM",
        until_right=True,
    )


def balanced(chains: Sequence[dict[str, Any]], settings: ReSTConfig) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """Turn chains into training trajectories, equally many of every length.

    Args:
        chains: Rows of `attempts.SCHEMA`, each over at its first right answer.
        settings: `answers` and `seed` are used.

    Returns:
        Rows with `question`, `prompt`, `answers` and `target`, in the order of the chains; and the counts: `chains`,
        `right` (chains that end right, by their length from 1) and `kept` (of each length).

    Raises:
        UserError: No chain of some length ends right, so that lengths cannot be balanced.
    """
    by_length: list[list[int]] = [[] for _ in range(settings.answers)]
    for i, chain in enumerate(chains):
        if chain["correct"][-1]:
            by_length[len(chain["answers"]) - 1].append(i)
    kept = min(map(len, by_length))
    if not kept:
        raise UserError(
            f"of {len(chains)} chains none reaches its first right answer at some place from 1 to {settings.answers}: "
            "raise --revision.rest_em.questions or lower --revision.rest_em.answers"
        )
    rng = np.random.default_rng(settings.seed)
    chosen = sorted(int(i) for found in by_length for i in rng.choice(found, kept, replace=False))
    rows = [
        {
            "question": chains[i]["question"],
            "prompt": chains[i]["prompt"],
            "answers": chains[i]["answers"][:-1],
            "target": chains[i]["answers"][-1],
        }
        for i in chosen
    ]
    return rows, {"chains": len(chains), "right": [len(found) for found in by_length], "kept": kept}
