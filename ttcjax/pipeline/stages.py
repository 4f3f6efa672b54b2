"""The stages of an experiment: what each is for, which it reads, and which settings decide its results."""

from __future__ import annotations

import functools
import importlib
from dataclasses import dataclass
from typing import Any

from ttcjax import config as config_lib
from ttcjax.config import ExperimentConfig
from ttcjax.runtime import stage as contract
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs

SCHEMA = 4
"""Part of every fingerprint: raise it when the same settings come to mean other results or other files of most stages;
for one stage there is `Stage.version`."""


@dataclass(frozen=True)
class Stage:
    """One stage of the list: its name, and the module with its declaration, which is imported when it is asked for."""

    name: str
    """Also its folder under the workdir and its subcommand."""
    module: str
    """Holds `STAGE`, a `ttcjax.runtime.stage.Stage`."""
    summary: str

    @functools.cached_property
    def declared(self) -> contract.Stage[Any]:
        """The declaration of its module."""
        return importlib.import_module(self.module).STAGE

    def needs(self, config: ExperimentConfig) -> tuple[str, ...]:
        """Return the stages whose folders it reads, as far as an experiment has them."""
        return (*self.declared.needs, *self.declared.also_needs(self.settings(config)))

    @property
    def writes(self) -> tuple[str, ...]:
        """Paths, from its folder, without which a complete stage is not complete after all."""
        return self.declared.writes

    def settings(self, config: ExperimentConfig) -> Any:
        """Return all that it sees of an experiment."""
        return self.declared.settings(config)

    def shards(self, config: ExperimentConfig, inputs: Inputs) -> list[Shard]:
        """Return its shards; see `ttcjax.runtime.stage.Stage.shards`."""
        if self.declared.shards is None:
            raise TypeError(f"stage {self.name} is not done in shards")
        return self.declared.shards(self.settings(config), inputs)

    def work(self, config: ExperimentConfig) -> str:
        """Return how much there is to do, from the settings alone."""
        return self.declared.work(self.settings(config))

    def wanted(self, config: ExperimentConfig) -> bool:
        """Return whether an experiment has this stage."""
        return all(any(_lookup(config, path) for path in paths) for paths in self._switches)

    @property
    def turned_on_by(self) -> str | None:
        """The settings that turn it on, with values that do; `None` for a stage of every experiment."""

        def given(path: str) -> str:
            known = isinstance(_lookup(ExperimentConfig(), path), bool)
            return f"{path} True" if known else f"{path} (its help says how)"

        return " --".join(" or --".join(map(given, paths)) for paths in self._switches) or None

    @property
    def _switches(self) -> list[tuple[str, ...]]:
        return [(switch,) if isinstance(switch, str) else switch for switch in self.declared.switch]


STAGES = (
    Stage("data", "ttcjax.data.prepare", "write the questions and train the tokenizer"),
    Stage("policy", "ttcjax.train.models.policy", "train the policy on reference solutions"),
    Stage("greedy", "ttcjax.eval.collect.greedy", "answer the test questions once with the likeliest tokens"),
    Stage("labels", "ttcjax.train.collect.labels", "label solution steps by Monte Carlo rollouts"),
    Stage("prm", "ttcjax.train.models.prm", "train the process-reward model on the labels"),
    Stage("tune", "ttcjax.eval.collect.tune", "try strategies at several temperatures on validation questions"),
    Stage("bank", "ttcjax.eval.collect.bank", "sample and score solutions of the test questions"),
    Stage("search", "ttcjax.eval.collect.searches", "run every search strategy at every budget"),
    Stage(
        "trajectories",
        "ttcjax.train.collect.trajectories",
        "sample answers of training questions and put others before right ones",
    ),
    Stage(
        "revision",
        "ttcjax.train.models.revision",
        "fine-tune the policy to answer again with its last answers in view",
    ),
    Stage(
        "attempts",
        "ttcjax.train.collect.attempts",
        "sample and grade the revision model's chains on other training questions",
    ),
    Stage(
        "orm",
        "ttcjax.train.models.orm",
        "train outcome-reward models on the attempts, and choose the verifier of revisions",
    ),
    Stage("base_orm", "ttcjax.train.models.base_orm", "train an outcome-reward model on the policy's samples"),
    Stage("larger", "ttcjax.train.models.larger", "train a larger policy on the same data"),
    Stage("rescore", "ttcjax.eval.collect.rescore", "judge the bank's samples with further verifiers"),
    Stage(
        "chains",
        "ttcjax.eval.collect.revision_chains",
        "sample and score the revision model's chains on the test questions",
    ),
    Stage(
        "rescore_chains",
        "ttcjax.eval.collect.rescore_chains",
        "judge the chains' answers with verifiers from elsewhere",
    ),
    Stage(
        "report",
        "ttcjax.eval.report.report",
        "compute accuracies and intervals, draw the figures, write summary.json",
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
    """Return 16 hex digits that change exactly when the results of `stage` may change."""
    found: dict[str, str] = {}

    def of(stage: Stage) -> str:
        if stage.name not in found:  # Stages share what they read.
            content = {
                "schema": SCHEMA,
                "stage": stage.name,
                "version": stage.declared.version,
                "settings": config_lib.hashed(stage.settings(config)),
                "needs": {need.name: of(need) for need in needs_of(stage, config)},
            }
            found[stage.name] = config_lib.config_hash(content)
        return found[stage.name]

    return of(stage)


def needs_of(stage: Stage, config: ExperimentConfig) -> list[Stage]:
    """Return the stages that a stage reads in this experiment."""
    return [need for need in map(get_stage, stage.needs(config)) if need.wanted(config)]


def _lookup(config: ExperimentConfig, path: str) -> Any:
    value: Any = config
    for key in path.split("."):
        value = getattr(value, key)
    return value
