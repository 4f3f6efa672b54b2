"""The stages of an experiment: what each is for, which it reads, and which settings decide its results."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ttcjax import config as config_lib
from ttcjax.config import ExperimentConfig
from ttcjax.runtime.errors import UserError

SCHEMA = 3
"""Part of every fingerprint: raise it when the same settings come to mean other results or other files of most stages;
for one stage there is `Stage.version`."""

_SPEED_ONLY = frozenset(
    # Files are known by their content, wherever they lie; a stage that is complete has refused nothing.
    ["data.dir", "data.faults"]
    + [f"sampler.{name}" for name in ("rows", "waves", "memory", "verifier_chunk", "prompt_bucket")]
    + [
        f"{train}.{name}"
        for train in ("policy", "prm.train", "revision.train", "orm.train")
        for name in ("log_every", "keep_checkpoints")
    ]
)
"""Settings that change where things lie, how fast or how talkative a stage is, and never what it finds."""


_VERIFIER_TRAINING = ("train", "valid_fraction", "likelihood", "imitation")
"""Settings of `prm` and of `orm` that decide how a verifier is trained."""


@dataclass(frozen=True)
class Stage:
    """One stage: where its code is, which stages it reads, and which settings decide its results."""

    name: str
    """Also its folder under the workdir and its subcommand."""
    module: str
    """Holds `run(config, workdir, out) -> dict`; imported when the stage runs."""
    summary: str
    needs: tuple[str, ...]
    """Stages whose folders it reads, as far as an experiment has them."""
    settings: tuple[str, ...]
    """Dotted paths in `ExperimentConfig`; a path stands for everything under it."""
    writes: tuple[str, ...] = ()
    """Paths, from its folder, without which a complete stage is not complete after all."""
    switch: tuple[str, ...] = ()
    """Dotted paths of the settings that turn it on together; none for a stage of every experiment."""
    version: int = 1
    """Part of its fingerprint: raise it when the same settings come to mean other results of this stage."""
    derived: Callable[[ExperimentConfig], dict[str, Any]] | None = None
    """What else of the config decides its results, where that is less than a whole setting."""

    def wanted(self, config: ExperimentConfig) -> bool:
        """Return whether an experiment has this stage."""
        tables = config_lib.to_dict(config) if self.switch else {}
        return all(_lookup(tables, path) for path in self.switch)

    @property
    def turned_on_by(self) -> str | None:
        """The settings that turn it on, with values that do; `None` for a stage of every experiment."""
        tables = config_lib.to_dict(ExperimentConfig())
        given = [
            f"{path} True" if isinstance(_lookup(tables, path), bool) else f"{path} (its help says how)"
            for path in self.switch
        ]
        return " --".join(given) or None


def _validated(config: ExperimentConfig) -> dict[str, Any]:
    return {"strategies whose temperature is validated": list(config.sweep.validated)}


def _bank_temperatures(config: ExperimentConfig) -> dict[str, Any]:
    """Return how many samples a bank holds at which other temperatures, as far as strategies name them."""
    if not any("temperature=" in name for name in config.sweep.strategies):
        return {}
    from ttcjax.eval.collect import temperatures  # imports pyarrow, which reading this module does not need

    found = temperatures.bank_samples(config, None)
    found.pop(config.sampler.temperature)
    return {"samples at other temperatures": {repr(t): n for t, n in found.items()}} if found else {}


STAGES = (
    Stage(
        "data",
        "ttcjax.data.prepare",
        "write the questions and train the tokenizer",
        (),
        ("data", "tokenizer"),
        ("tokenizer.model",),
        version=2,
    ),
    Stage(
        "policy",
        "ttcjax.train.models.policy",
        "train the policy on reference solutions",
        ("data",),
        ("model", "policy", "drafts"),
        ("best",),
    ),
    Stage(
        "greedy",
        "ttcjax.eval.collect.greedy",
        "answer the test questions once with the likeliest tokens",
        ("data", "policy", "larger"),
        ("sampler",),
        version=2,
    ),
    Stage(
        "labels",
        "ttcjax.train.collect.labels",
        "label solution steps by Monte Carlo rollouts",
        ("data", "policy"),
        ("sampler", "labels"),
    ),
    Stage(
        "prm",
        "ttcjax.train.models.prm",
        "train the process-reward model on the labels",
        ("data", "policy", "labels"),
        tuple(f"prm.{name}" for name in _VERIFIER_TRAINING),
        ("best",),
        version=2,
    ),
    Stage(
        "tune",
        "ttcjax.eval.collect.tune",
        "try strategies at several temperatures on validation questions",
        ("data", "policy", "prm"),
        (
            "sampler",
            "prm.aggregate",
            "sweep.budgets",
            "sweep.temperatures",
            "sweep.tune_questions",
            "sweep.seeds",
            "sweep.max_rounds",
            "sweep.seed",
            "sweep.shard_questions",
        ),
        switch=("sweep.temperatures",),
        version=2,
        derived=_validated,
    ),
    Stage(
        "bank",
        "ttcjax.eval.collect.bank",
        "sample and score solutions of the test questions",
        ("data", "policy", "prm", "tune"),
        ("sampler", "sweep.samples", "sweep.samples_content", "sweep.seed", "sweep.shard_questions"),
        version=2,
        derived=_bank_temperatures,
    ),
    Stage(
        "search",
        "ttcjax.eval.collect.searches",
        "run every search strategy at every budget",
        ("data", "policy", "prm", "tune"),
        (
            "sampler",
            "prm.aggregate",
            "sweep.budgets",
            "sweep.strategies",
            "sweep.seeds",
            "sweep.max_rounds",
            "sweep.seed",
            "sweep.shard_questions",
        ),
        version=2,
    ),
    Stage(
        "trajectories",
        "ttcjax.train.collect.trajectories",
        "sample answers of training questions and put others before right ones",
        ("data", "policy"),
        ("sampler", "revision.trajectories"),
        version=2,
        switch=("revision.enabled",),
    ),
    Stage(
        "revision",
        "ttcjax.train.models.revision",
        "fine-tune the policy to answer again with its last answers in view",
        ("data", "policy", "trajectories"),
        (
            "revision.train",
            "revision.valid_fraction",
            "revision.max_seq_len",
            "revision.max_answers",
            "revision.restate",
            "revision.rest_em",
            "sampler",
        ),
        ("best",),
        switch=("revision.enabled",),
    ),
    Stage(
        "attempts",
        "ttcjax.train.collect.attempts",
        "sample and grade the revision model's chains on other training questions",
        ("data", "revision"),
        (
            "sampler",
            "revision.max_answers",
            "revision.restate",
            "revision.trajectories.questions",
            "labels.questions",
            "orm.questions",
            "orm.chains",
            "orm.answers",
            "orm.seed",
            "orm.shard_questions",
        ),
        switch=("revision.enabled", "orm.revisions"),
    ),
    Stage(
        "orm",
        "ttcjax.train.models.orm",
        "train outcome-reward models on the attempts, and choose the verifier of revisions",
        ("data", "prm", "revision", "attempts"),
        (
            "sampler",
            "prm.aggregate",
            "revision.max_answers",
            "revision.restate",
            "orm.variants",
            "orm.every_step",
            *(f"orm.{name}" for name in _VERIFIER_TRAINING),
        ),
        switch=("revision.enabled", "orm.revisions"),
        version=2,
    ),
    Stage(
        "base_orm",
        "ttcjax.train.models.base_orm",
        "train an outcome-reward model on the policy's samples",
        ("data", "policy", "labels"),
        (
            "orm.base_settings",
            "orm.every_step",
            *(f"{whose}.{name}" for whose in ("prm", "orm") for name in _VERIFIER_TRAINING),
        ),
        ("best",),
        switch=("orm.base",),
        version=2,
    ),
    Stage(
        "larger",
        "ttcjax.train.models.larger",
        "train a larger policy on the same data",
        ("data",),
        (
            "larger.model",
            "larger.optimizer",
            "drafts",
            *(f"policy.{f.name}" for f in dataclasses.fields(config_lib.TrainConfig) if f.name != "optimizer"),
        ),
        ("best",),
        switch=("larger.enabled",),
    ),
    Stage(
        "rescore",
        "ttcjax.eval.collect.rescore",
        "judge the bank's samples with an outcome-reward model",
        ("data", "policy", "base_orm", "bank"),
        ("sampler", "sweep.shard_questions"),
        switch=("orm.base",),
        version=2,
    ),
    Stage(
        "chains",
        "ttcjax.eval.collect.revision_chains",
        "sample and score the revision model's chains on the test questions",
        ("data", "prm", "revision", "orm"),
        (
            "sampler",
            "prm.aggregate",
            "revision.max_answers",
            "revision.restate",
            "orm.revisions",
            "orm.variants",
            "chains",
        ),
        switch=("revision.enabled",),
    ),
    Stage(
        "report",
        "ttcjax.eval.report.report",
        "compute accuracies and intervals, draw the figures, write summary.json",
        ("data", "policy", "labels", "prm", "trajectories", "tune", "bank", "rescore", "search", "chains", "greedy"),
        tuple(f.name for f in dataclasses.fields(ExperimentConfig) if f.name not in config_lib.UNHASHED),
        ("../summary.json",),
        version=7,
    ),
)


def get_stage(name: str) -> Stage:
    """Return the stage of that name.

    Raises:
        UserError: There is none.
    """
    for stage in STAGES:
        if stage.name == name:
            return stage
    raise UserError(f"unknown stage {name!r}; the stages are {', '.join(s.name for s in STAGES)}")


def fingerprint(stage: Stage, config: ExperimentConfig) -> str:
    """Return 16 hex digits that change exactly when the results of `stage` may change.

    The report writes down the hash of the whole config, so for it every setting counts.
    """
    tables, found = config_lib.to_dict(config), {}

    def of(stage: Stage) -> str:
        if stage.name not in found:  # Stages share what they read.
            settings = {path: _lookup(tables, path) for path in stage.settings}
            # What is not given changes nothing, so folders made before there was such a setting stay good.
            settings = {path: value for path, value in settings.items() if value is not None}
            if stage.name != "report":
                settings = {path: _without_speed_only(value, path) for path, value in settings.items()}
            needs = {need.name: of(need) for need in needs_of(stage, config)}
            if stage.derived is not None:
                settings |= stage.derived(config)
            content = {"schema": SCHEMA, "stage": stage.name, "settings": settings, "needs": needs}
            if stage.version > 1:  # Folders made before stages had versions stay good.
                content["version"] = stage.version
            found[stage.name] = config_lib.config_hash(content)
        return found[stage.name]

    return of(stage)


def needs_of(stage: Stage, config: ExperimentConfig) -> list[Stage]:
    """Return the stages that a stage reads in this experiment."""
    return [need for need in map(get_stage, stage.needs) if need.wanted(config)]


def _lookup(tables: dict[str, Any], path: str) -> Any:
    value: Any = tables
    for key in path.split("."):
        value = value[key]
    return value


def _without_speed_only(value: Any, path: str) -> Any:
    if not isinstance(value, dict):
        return value
    return {k: _without_speed_only(v, f"{path}.{k}") for k, v in value.items() if f"{path}.{k}" not in _SPEED_ONLY}
