"""One question, answered with the models of a workdir."""

from __future__ import annotations

import dataclasses
import difflib
import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from ttcjax.config import ExperimentConfig, SamplerConfig, from_dict
from ttcjax.data import loader
from ttcjax.data.prepare import FAMILIAR_FILE
from ttcjax.data.task import Task
from ttcjax.engine.engine import Prompt
from ttcjax.engine.loading import load_engine
from ttcjax.runtime import faults, records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there, resolve_workdir
from ttcjax.search import registry, revision_verifiers
from ttcjax.search.chains import Answer, read_answer
from ttcjax.search.contract import Strategy
from ttcjax.search.ops import run
from ttcjax.search.revision_verifiers import Judges
from ttcjax.search.session import OWN, Session, read
from ttcjax.text.familiar import Familiar


@dataclass(frozen=True)
class Reply:
    """One answer of a chain, and what it changed."""

    answer: str | None
    """`None` where none can be read."""
    score: float
    steps: list[tuple[str, bool]]
    """Its steps, and whether each is new: not taken over from the answer that it revises."""
    kept: bool | None
    """Whether it took the place of the answer before it, for strategies that decide so."""


@dataclass(frozen=True)
class Solved:
    """An answer with the evidence for it."""

    question: str
    answer: str | None
    """`None` where no candidate has an answer that can be read."""
    steps: list[tuple[str, float]]
    """Steps of a candidate with the chosen answer, the best one or of a vote the first, with the verifier's scores."""
    votes: list[tuple[str | None, float, int]]
    """(answer, summed score, candidates), the chosen one first, then by score; the answer `None` gathers what could not
    be read."""
    generations: int
    seconds: float
    """Wall time, compilation included, loading not."""
    warning: str | None = None
    """Why the answer may be worth little."""
    chains: tuple[tuple[Reply, ...], ...] = ()
    """The chains that led to it, of strategies that revise."""
    chosen: tuple[int, int] | None = None
    """Chain and place of an answer that says the same, both from 0; `None` without chains, or without an answer."""


def config_of(workdir: epath.PathLike, strategy: str) -> ExperimentConfig:
    """Return the config of the run whose models a strategy asks.

    Raises:
        ConfigError: The strategy cannot be read.
        UserError: The workdir lacks a model.
    """
    workdir = resolve_workdir(workdir)
    if registry.parse(strategy, n=1).revises:
        if not is_there(workdir / "orm") and is_there(workdir / "revision"):
            config = _config(workdir, "revision", "no revision model")
            if not config.orm.revisions:  # The PRM judges them.
                return config
        return _config(workdir, "orm", "no verifier of revisions", " with --revision.enabled True")
    return _config(workdir, "prm", "no trained verifier")


def _selecting(config: ExperimentConfig, workdir: epath.Path) -> str:
    """Return the verifier that selects among revisions in a workdir.

    Args:
        config: With which the ORM stage was run; `chains.verifier` may have been set after it.
        workdir: Of the run.
    """
    if records.read_complete(workdir / "chains") is not None:
        config = dataclasses.replace(config, chains=_config(workdir, "chains", "").chains)
    return Judges.of(config).chosen(config.chains.verifier, workdir / "orm")


def _replies(chain: Sequence[Answer], task: Task) -> tuple[Reply, ...]:
    replies, current = [], []
    for answer in chain:
        steps = task.steps.split(answer.text)
        same: set[int] = set()
        for block in difflib.SequenceMatcher(None, current, steps, autojunk=False).get_matching_blocks():
            same.update(range(block.b, block.b + block.size))
        replies.append(
            Reply(
                answer=read_answer(task, answer),
                score=answer.score or 0.0,
                steps=[(step, i not in same) for i, step in enumerate(steps)],
                kept=answer.kept,
            )
        )
        if answer.kept is not False:
            current = steps
    return tuple(replies)


def _config(workdir: epath.Path, stage: str, lacks: str, how: str = "") -> ExperimentConfig:
    """Return the config that a stage of a workdir was made with."""
    record = records.read_complete(workdir / stage)
    if record is None and is_there(workdir / stage):
        raise UserError(f"{workdir / stage} {records.why_none(workdir / stage)}: run the command again that made it")
    if record is None:
        raise UserError(f"{lacks} in {workdir}: run `ttcjax run CONFIG --workdir {workdir}`{how} first")
    try:
        values = record["config"]
        if missing := {field.name for field in dataclasses.fields(ExperimentConfig)} - set(values):
            raise ValueError(f"it lacks {', '.join(sorted(missing))}")
        return from_dict(ExperimentConfig, values)
    except (KeyError, TypeError, ValueError) as error:
        raise records.damaged(records.path_of(workdir / stage), f"its config cannot be read: {error}") from error


def _checked(question: str, seed: int) -> str:
    """Return the question as questions of data sets stand, without white space around it."""
    if not 0 <= seed < 2**32:
        raise UserError(f"the seed must lie in [0, 2^32), not {seed}")
    if not question.strip():
        raise UserError("the question is empty")
    try:
        question.encode()
    except UnicodeEncodeError as error:
        raise UserError("the question holds a half of a character (a lone surrogate): give it as UTF-8 text") from error
    return question.strip()


def _warning(workdir: epath.Path, prompt: Prompt) -> str | None:
    """Return what to say of a question that is unlike those of the training split."""
    path = workdir / "data" / FAMILIAR_FILE
    if not is_there(path):
        gone = records.hash_of(path) is not None
        return f"{path} is gone: whether the question is like those of training is not known" if gone else None
    content = records.read_own(path)
    try:
        familiar = Familiar.read(content)
    except ValueError as error:
        raise records.damaged(path, "it cannot be read") from error
    tokens = prompt.tokens[1:]
    if not familiar.is_strange(tokens):
        return None
    lowest, count = familiar.known[0], len(familiar.known)
    return (
        "this question is unlike those that the policy was trained on, and its answer is worth little (log-probability "
        f"{familiar.likelihood(tokens):.1f} a token by their trigrams; all {count} validation questions have "
        f"{lowest:.1f} or more)"
    )


@faults.explained()
def solve(
    question: str,
    workdir: epath.PathLike,
    strategy: str = "beam:n=16,width=4",
    seed: int = 0,
    sampler: SamplerConfig | None = None,
) -> Solved:
    """Answer `question` with the models that a run left in `workdir`.

    Args:
        question: In the style the policy was trained on; white space around it does not count.
        workdir: Of a finished `ttcjax run`; of one with `revision.enabled` for strategies that revise.
        strategy: As in `ttcjax.search.registry.parse`.
        seed: Root of all random numbers.
        sampler: In place of the run's own settings.

    Raises:
        UserError: The workdir lacks a stage, or the question is too long for the models.
    """
    chosen = registry.parse(strategy, n=16)
    workdir = resolve_workdir(workdir)
    config = config_of(workdir, strategy)
    question = _checked(question, seed)
    task = loader.task(config.data)
    session = _session(config, workdir, chosen, task, question, sampler or config.sampler)
    warning = _warning(workdir, session.prompts[0])
    begin = time.perf_counter()
    [outcome] = run(chosen, session, seed)
    seconds = time.perf_counter() - begin
    [outcome] = read(session, [outcome])  # to be shown with scores

    candidates, chains = outcome.candidates, tuple(_replies(chain, task) for chain in outcome.chains)
    answers, best = outcome.answers, outcome.choices[OWN]
    scores = outcome.likelihoods if chosen.selector.by == "likelihood" else np.array(outcome.scores)
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
        steps=list(zip(task.steps.split(shown.text), shown.step_scores, strict=False)),
        votes=sorted(votes, key=lambda vote: (vote[0] != answer, -vote[1])),
        generations=outcome.generations,
        seconds=seconds,
        warning=warning,
        chains=chains,
        chosen=None if best is None or not chains else divmod(best, len(chains[0])),
    )


def _session(
    config: ExperimentConfig, workdir: epath.Path, strategy: Strategy, task: Task, question: str, sampler: SamplerConfig
) -> Session:
    """Load the models that a strategy asks, for one question."""
    # No more rows in a batch than one question has at a time.
    sampler = dataclasses.replace(sampler, rows=min(sampler.rows, strategy.at_once()))
    if not strategy.revises:
        engine = load_engine(workdir, sampler, steps=task.steps)
        return Session(engine, task, [engine.encode_prompt(question, task.prompt(question))], config.prm.aggregate)
    verifier = _selecting(config, workdir)
    engine = load_engine(
        workdir, sampler, policy="revision", verifier=revision_verifiers.stage_of(verifier), steps=task.steps
    )
    prompts = [engine.encode_prompt(question, task.prompt(question))]
    return Session(
        engine, task, prompts, reviser=Judges.of(config).reviser(engine, prompts, config.revision.view, verifier)
    )
