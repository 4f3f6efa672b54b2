"""What a run would do, stage by stage, told without running or writing anything."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from etils import epath

from ttcjax.config import ChainsConfig, ExperimentConfig, TrainConfig
from ttcjax.pipeline import run
from ttcjax.pipeline import stages as stages_lib
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import records
from ttcjax.runtime.files import is_there


@dataclass(frozen=True)
class Planned:
    """Work that a run would do of one stage."""

    stage: str
    action: str
    """`keep` what is complete, `run`, `resume` what was begun, `repair` what is damaged, or `restore` what was kept of
    these settings."""
    why: str
    work: str
    """How much it is in all; empty for a stage that is kept."""


def plan(config: ExperimentConfig, *, only: str | None = None, command: str = "CONFIG") -> list[Planned]:
    """Return what `pipeline.run` would do, given the same.

    Raises:
        UserError: What `pipeline.run` refuses before anything runs.
    """
    chosen = run.wanted_stages(config, only)
    config, workdir = run.prepared(config)
    if only is not None:
        run.require_needs(chosen[0], config, workdir, command)
    return [_planned(stage, config, workdir) for stage in chosen]


def lines(found: Sequence[Planned], shares: Mapping[str, str]) -> list[str]:
    """Return a plan as lines of text.

    Args:
        found: The plan.
        shares: How training stands on the devices, as `pipeline.device_shares` tells.
    """
    told = [f"{one.stage:12} {one.action:8} {'; '.join(filter(None, (one.why, one.work)))}".rstrip() for one in found]
    return [*told, *shares.values()]


def _planned(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> Planned:
    wanted = stages_lib.fingerprint(stage, config)
    final, partial = workdir / stage.name, workdir / f"{stage.name}.partial"
    record = records.read(final)
    mine = record is not None and record["fingerprint"] == wanted
    kept = records.read_complete(workdir / f"{stage.name}.old-{wanted}")
    if mine and record is not None and record["complete"] and is_there(final):
        wrong = run.wrong_files(stage, final, record)
        if not wrong:
            return Planned(stage.name, "keep", "complete", "")
        name, why = next(iter(wrong.items()))
        return Planned(stage.name, "repair", f"{name} {why}", _work(stage, config))
    if mine and is_there(partial):
        return Planned(stage.name, "resume", "begun and not finished", _work(stage, config))
    if kept is not None:
        return Planned(stage.name, "restore", f"complete in {stage.name}.old-{wanted}", "")
    why = ""
    if is_there(final) or is_there(partial):
        why = "made with other settings or of other files, and kept"
        if record is None and is_there(final):
            why = f"what is there {records.why_none(final)}, and is kept"
    return Planned(stage.name, "run", why, _work(stage, config))


def _work(stage: Stage, config: ExperimentConfig) -> str:
    return _WORK[stage.name](config) if stage.name in _WORK else ""


def _training(train: TrainConfig, models: int = 1) -> str:
    found = f"{train.steps:,} steps of {train.batch_size} rows of {train.seq_len} tokens"
    return f"{models} models, each {found}" if models > 1 else found


def _search(config: ExperimentConfig) -> str:
    from ttcjax.eval.collect.searches import search_cells  # imports jax

    cells = search_cells(config)
    generations = sum(strategy.cost() for strategy in cells) * config.sweep.seeds
    return f"{len(cells)} searches of {config.data.num_test:,} questions, {generations:,} generations each in all"


def _bank(config: ExperimentConfig) -> str:
    from ttcjax.eval.collect.temperatures import bank_samples  # imports pyarrow

    first, *others = bank_samples(config, None).values()
    asked = f"{_times(config.data.num_test, first)} solutions"
    if others:
        most = "at most " * bool(config.sweep.validated)
        plural = "s" * (len(others) > 1)
        asked += f", {most}{_times(config.data.num_test, sum(others))} at {len(others)} other temperature{plural}"
    return asked


def _tune(config: ExperimentConfig) -> str:
    from ttcjax.eval.collect import (
        searches,
        temperatures,
        validated,  # imports jax
    )

    questions = min(config.sweep.tune_questions, config.data.num_valid)
    trial = validated.on_validation(config, questions)
    samples = sum(temperatures.bank_samples(trial, None).values())
    cells = searches.search_cells(trial)
    searched = sum(strategy.cost() for strategy in cells) * config.sweep.seeds
    return (
        f"{_times(questions, samples)} solutions, {len(cells)} searches of {questions:,} questions, {searched:,} "
        "generations each in all"
    )


def _times(*numbers: int) -> str:
    product = 1
    for number in numbers:
        product *= number
    return f"{' x '.join(f'{number:,}' for number in numbers)} = {product:,}"


def _answers(chains: ChainsConfig) -> int:
    """Return how many answers a question gets at most: in its chains, in the swap control, and in refining."""
    return sum(chains.lengths) + chains.swap + (1 + chains.refine if chains.refine else 0)


_WORK: dict[str, Callable[[ExperimentConfig], str]] = {
    "data": lambda c: f"at most {c.data.num_train:,} + {c.data.num_valid:,} + {c.data.num_test:,} questions",
    "policy": lambda c: _training(c.policy),
    "labels": lambda c: (
        f"{_times(c.labels.questions, c.labels.samples)} solutions, {c.labels.rollouts} completions of each step"
    ),
    "prm": lambda c: _training(c.prm.train),
    "trajectories": lambda c: f"{_times(c.revision.trajectories.questions, c.revision.trajectories.samples)} answers",
    "revision": lambda c: _training(c.revision.train, 2 if c.revision.rest_em.chains else 1),
    "attempts": lambda c: f"{_times(c.orm.questions, c.orm.chains, c.orm.answers)} answers",
    "orm": lambda c: _training(c.orm.train, len(c.orm.variants)),
    "base_orm": lambda c: _training(c.base_orm.train),
    "larger": lambda c: _training(c.policy),
    "tune": _tune,
    "bank": _bank,
    "rescore": lambda c: f"{_times(c.data.num_test, c.sweep.samples)} solutions",
    "search": _search,
    "chains": lambda c: (
        f"{_times(min(c.chains.questions or c.data.num_test, c.data.num_test), _answers(c.chains))} answers at most"
    ),
    "greedy": lambda c: f"{_times(c.data.num_test, 1 + c.larger.enabled)} answers",
}
"""How much each stage is to do, from the settings alone."""
