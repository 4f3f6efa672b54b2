"""One question, answered with the models of a workdir."""

from __future__ import annotations

import dataclasses
import json
import time
from dataclasses import dataclass

import numpy as np
from etils import epath

from ttcjax import select
from ttcjax.config import ExperimentConfig, from_dict
from ttcjax.data import loader
from ttcjax.errors import UserError
from ttcjax.sample.loading import load_engine
from ttcjax.search import registry
from ttcjax.search.run import search
from ttcjax.text.steps import split_steps
from ttcjax.verify.aggregate import aggregate


@dataclass(frozen=True)
class Solved:
    """An answer with the evidence for it."""

    question: str
    answer: str | None
    """`None` where no candidate has an answer that can be read."""
    steps: list[tuple[str, float]]
    """Steps of the best candidate with the chosen answer, each with the verifier's score."""
    votes: list[tuple[str | None, float, int]]
    """(answer, weight, candidates), the chosen one first, then by weight; the answer `None` gathers what could not
    be read."""
    generations: int
    seconds: float
    """Wall time, compilation included, loading not."""


def solve(question: str, workdir: epath.PathLike, strategy: str = "beam:n=16,width=4", seed: int = 0) -> Solved:
    """Answer `question` with the policy and verifier that a run left in `workdir`.

    Args:
        question: In the style the policy was trained on.
        workdir: Of a finished `ttcjax run`.
        strategy: As in `ttcjax.search.registry.parse`.
        seed: Root of all random numbers.

    Raises:
        UserError: The workdir lacks a stage, or the question is too long for the models.
    """
    workdir = epath.Path(workdir)
    record = workdir / "prm" / "config.json"
    if not record.exists():
        raise UserError(f"no trained verifier in {workdir}: run `ttcjax run CONFIG --workdir {workdir}` first")
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed must lie in [0, 2^32), not {seed}")
    try:
        config = from_dict(ExperimentConfig, json.loads(record.read_text()))
    except ValueError as error:
        raise UserError(f"{record} is damaged: delete {record.parent} and run the prm stage again") from error
    chosen = registry.parse(strategy, n=16)
    rule = getattr(chosen, "select", "weighted")
    task = loader.task(config.data)
    sampler = dataclasses.replace(config.sampler, rows=max(chosen.n, 1))
    engine = load_engine(workdir, sampler)

    begin = time.perf_counter()
    prompt = engine.encode_prompt(question, task.prompt(question))
    candidates = search(engine, chosen, [prompt], seed)[0]
    seconds = time.perf_counter() - begin

    answers = [task.extract(c.text) if c.finished else None for c in candidates]
    scores = aggregate([c.step_scores for c in candidates], config.prm.aggregate)
    best = select.choose_one(answers, scores, rule)
    weights: dict[str | None, tuple[float, int]] = {}
    for answer, score in zip(answers, scores, strict=True):
        weight, count = weights.get(answer, (0.0, 0))
        weights[answer] = (weight + (0.0 if answer is None else float(score)), count + 1)
    votes = [(a, weight, count) for a, (weight, count) in weights.items()]
    answer = None if best is None else answers[best]
    # Where nothing can be read, the best-scored candidate still shows what the policy tried.
    shown = candidates[int(np.argmax(scores)) if best is None else best]
    return Solved(
        question=question,
        answer=answer,
        steps=list(zip(split_steps(shown.text), shown.step_scores, strict=False)),
        votes=sorted(votes, key=lambda vote: (vote[0] != answer, -vote[1])),
        generations=chosen.cost(),
        seconds=seconds,
    )
