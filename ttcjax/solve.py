"""One question, answered with the models of a workdir."""

from __future__ import annotations

import dataclasses
import difflib
import time
from dataclasses import dataclass

import numpy as np
from etils import epath

from ttcjax import select
from ttcjax.config import ConfigError, ExperimentConfig, SamplerConfig, from_dict
from ttcjax.data import loader
from ttcjax.data.prepare import FAMILIAR_FILE
from ttcjax.data.task import Task
from ttcjax.errors import UserError
from ttcjax.files import is_there, resolve_workdir
from ttcjax.revise import strategies, verifiers
from ttcjax.runtime import faults, records
from ttcjax.sample.engine import Prompt
from ttcjax.sample.loading import load_engine
from ttcjax.search import registry
from ttcjax.search.chains import Answer, read_answer
from ttcjax.search.run import search
from ttcjax.text.familiar import Familiar
from ttcjax.text.steps import split_steps
from ttcjax.verify.aggregate import aggregate, token_likelihood


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
class Revised:
    """An answer with the chains that led to it."""

    question: str
    answer: str | None
    """`None` where no answer can be read."""
    chains: list[list[Reply]]
    chosen: tuple[int, int] | None
    """Chain and place of an answer that says the same, both from 0."""
    generations: int
    seconds: float
    """Wall time, compilation included, loading not."""
    warning: str | None = None
    """Why the answer may be worth little."""


def is_revising(strategy: str) -> bool:
    """Return whether a strategy's name is of a kind that `solve_by_revising` runs.

    Raises:
        ConfigError: It is of no kind that either function runs.
    """
    kind = strategy.partition(":")[0]
    known = ["majority", *registry.STRATEGIES, *strategies.STRATEGIES]
    if kind not in known:
        raise ConfigError(f"unknown strategy {kind!r} in {strategy!r}{registry.closest(kind, known)}")
    return strategies.is_one(strategy)


def config_of(workdir: epath.PathLike, strategy: str) -> ExperimentConfig:
    """Return the config of the run whose models a strategy asks.

    Raises:
        ConfigError: The strategy is of an unknown kind.
        UserError: The workdir lacks a model.
    """
    workdir = resolve_workdir(workdir)
    if is_revising(strategy):
        if not is_there(workdir / "orm") and is_there(workdir / "revision"):
            config = _config(workdir, "revision", "no revision model")
            if not config.orm.revisions:  # The PRM judges them.
                return config
        return _config(workdir, "orm", "no verifier of revisions", " with --revision.enabled True")
    return _config(workdir, "prm", "no trained verifier")


@faults.explained()
def solve_by_revising(
    question: str, workdir: epath.PathLike, strategy: str, seed: int = 0, sampler: SamplerConfig | None = None
) -> Revised:
    """Answer `question` with the revision model and its verifier that a run left in `workdir`.

    Args:
        question: In the style the models were trained on; white space around it does not count.
        workdir: Of a finished `ttcjax run` with `revision.enabled`.
        strategy: As in `ttcjax.revise.strategies.parse`.
        seed: Root of all random numbers.
        sampler: In place of the run's own settings.

    Raises:
        UserError: The workdir lacks a stage, or the question is too long for the models.
    """
    chosen = strategies.parse(strategy)
    workdir = resolve_workdir(workdir)
    config = config_of(workdir, strategy)
    question = _checked(question, seed)
    verifier = _selecting(config, workdir)
    task = loader.task(config.data)
    parallel = chosen.p if isinstance(chosen, strategies.Revise) else 1
    settings = _at_once(sampler or config.sampler, parallel)
    engine = load_engine(workdir, settings, policy="revision", verifier=verifiers.stage_of(verifier))
    prompt = engine.encode_prompt(question, task.prompt(question))
    reviser = verifiers.reviser(engine, [prompt], config, verifier)
    warning = _warning(workdir, prompt)

    begin = time.perf_counter()
    if isinstance(chosen, strategies.Refine):
        [group] = chosen.run(reviser, seed, lambda answer: read_answer(task, answer) is not None)
    else:
        [group] = reviser.score(chosen.run(reviser, seed))
    seconds = time.perf_counter() - begin

    replies = [_replies(chain, task) for chain in group]
    if isinstance(chosen, strategies.Refine):
        last = max(place for place, reply in enumerate(replies[0]) if reply.kept)
        at = None if replies[0][last].answer is None else (0, last)
    else:
        answers = [reply.answer for chain in replies for reply in chain]
        scores = np.array([[reply.score for reply in chain] for chain in replies])
        groups = select.group_answers(answers).reshape(scores.shape)
        place = int(select.choose_in_chains(groups[None], scores[None], chosen.select, chosen.ties)[0])
        at = None if place < 0 else divmod(place, chosen.s)
    return Revised(
        question=question,
        answer=None if at is None else replies[at[0]][at[1]].answer,
        chains=replies,
        chosen=at,
        generations=chosen.cost(),
        seconds=seconds,
        warning=warning,
    )


def _selecting(config: ExperimentConfig, workdir: epath.Path) -> str:
    """Return the verifier that selects among revisions in a workdir.

    Args:
        config: With which the ORM stage was run; `chains.verifier` may have been set after it.
        workdir: Of the run.
    """
    if records.read_complete(workdir / "chains") is not None:
        config = dataclasses.replace(config, chains=_config(workdir, "chains", "").chains)
    return verifiers.chosen(config, workdir)


def _at_once(sampler: SamplerConfig, wanted: int) -> SamplerConfig:
    """Return the settings with no more rows in a batch than one question has."""
    return dataclasses.replace(sampler, rows=min(sampler.rows, wanted))


def _replies(chain: list[Answer], task: Task) -> list[Reply]:
    replies, current = [], []
    for answer in chain:
        steps = split_steps(answer.text)
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
    return replies


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
    """Answer `question` with the policy and verifier that a run left in `workdir`.

    Args:
        question: In the style the policy was trained on; white space around it does not count.
        workdir: Of a finished `ttcjax run`.
        strategy: As in `ttcjax.search.registry.parse`.
        seed: Root of all random numbers.
        sampler: In place of the run's own settings.

    Raises:
        UserError: The workdir lacks a stage, or the question is too long for the models.
    """
    if is_revising(strategy):
        raise ConfigError(f"{strategy!r} revises: it is run by solve_by_revising")
    chosen = registry.parse(strategy, n=16)
    workdir = resolve_workdir(workdir)
    config = config_of(workdir, strategy)
    question = _checked(question, seed)
    rule = getattr(chosen, "select", "weighted")
    task = loader.task(config.data)
    settings = _at_once(sampler or config.sampler, chosen.n)
    engine = load_engine(workdir, settings)

    prompt = engine.encode_prompt(question, task.prompt(question))
    warning = _warning(workdir, prompt)
    begin = time.perf_counter()
    candidates = search(engine, chosen, [prompt], seed)[0].candidates
    seconds = time.perf_counter() - begin

    answers = [task.extract(c.text) if c.finished else None for c in candidates]
    if getattr(chosen, "by", "verifier") == "likelihood":
        scores = token_likelihood(
            np.array([c.logprob for c in candidates]), np.array([len(c.tokens) for c in candidates])
        )
    else:
        scores = aggregate([c.step_scores for c in candidates], config.prm.aggregate)
    temperature = getattr(chosen, "vote_temperature", 1.0)
    best = select.choose_one(answers, scores, rule, ties=getattr(chosen, "ties", None), temperature=temperature)
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
        warning=warning,
    )
