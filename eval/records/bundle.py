"""The records of a run as its report reads them: each kind typed, read from disk when it is first asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import pyarrow as pa
from etils import epath

from ttcjax.config import (
    SPEED_ONLY,
    ChainsConfig,
    DraftsConfig,
    ExperimentConfig,
    Questions,
    RevisionConfig,
    SweepConfig,
    config_hash,
    to_dict,
)
from ttcjax.data import loader
from ttcjax.data.task import Task
from ttcjax.eval.collect import greedy, revision_chains, searches, temperatures, validated
from ttcjax.eval.collect.validated import Choice
from ttcjax.eval.records import answer_chains, measured, sample_rows, solution_lines, verifier_scores
from ttcjax.eval.records import trained as trained_lib
from ttcjax.eval.records.answer_chains import Splits
from ttcjax.eval.records.measured import Measured, Rules
from ttcjax.eval.records.trained import Trained
from ttcjax.eval.records.verifier_scores import BankVerifier
from ttcjax.eval.stats.difficulty import enough
from ttcjax.eval.stats.estimators import COLUMNS
from ttcjax.eval.stats.intervals import Bootstrap
from ttcjax.runtime import records as stage_records
from ttcjax.search.revision_verifiers import Judges, Revising
from ttcjax.verify.aggregate import Aggregation

COUNTED = ("tokens", "lookahead_tokens", "verifier_tokens")
"""Columns of result rows that say what a row cost."""

R = TypeVar("R", covariant=True)
_V = TypeVar("_V")


@dataclass(frozen=True)
class ReportSettings:
    """Settings of an experiment as sections see them.

    Attributes:
        name: Of the experiment.
        config_hash: Of its config.
        sweep: Budgets, strategies, samples, folds and resamples.
        aggregate: Step aggregation behind the PRM's score of a solution.
        temperature: Of the sampler.
        labels_temperature: At which step labels were completed.
        verifiers: Those that judge the bank, the one it is made with first.
        larger: Whether a larger model is compared.
        revision: The revision model.
        drafts: Answers in view in the policy's own training.
        chains: Chains of revisions.
        questions: What can be asked.
        rules: By what rows become accuracies.
        choice: How temperatures are chosen on validation questions, where a strategy asks for that.
        judges: The verifiers of revisions.
        searches: Whether a strategy searches.
        shown: All settings as JSON, for the page; what of them decides results is in `config_hash`.
    """

    name: str
    config_hash: str
    sweep: SweepConfig
    aggregate: Aggregation
    temperature: float
    labels_temperature: float
    verifiers: tuple[BankVerifier, ...]
    larger: bool
    revision: RevisionConfig
    drafts: DraftsConfig
    chains: ChainsConfig
    questions: Questions
    rules: Rules
    choice: Choice | None
    judges: Judges
    searches: bool
    shown: str = field(metadata=SPEED_ONLY)


def settings_of(config: ExperimentConfig) -> ReportSettings:
    """Return what the report sees of a config."""
    rules = Rules.of(config)
    sampled, completed = config.sampler.temperature, config.labels.temperature
    return ReportSettings(
        name=config.name,
        config_hash=config_hash(config),
        sweep=config.sweep,
        aggregate=config.prm.aggregate,
        temperature=sampled,
        labels_temperature=sampled if completed is None else completed,
        verifiers=verifier_scores.of_bank(config),
        larger=config.larger.enabled,
        revision=config.revision,
        drafts=config.drafts,
        chains=config.chains,
        questions=config.test_questions,
        rules=rules,
        choice=Choice.of(config) if rules.grid.validated else None,
        judges=Judges.of(config),
        searches=bool(searches.search_cells(rules.grid, config.sweep.max_rounds)),
        shown=json.dumps(to_dict(config)),
    )


@runtime_checkable
class _Computed(Protocol[R]):
    """A section, see `ttcjax.eval.report.section`."""

    name: str

    def compute(self, records: Any) -> R: ...


class Records:
    """Rows, models and settings that the stages of a run left.

    Every property reads what it needs when it is first asked for, and raises `UserError` where that is missing,
    corrupt, or of another config.

    Attributes:
        settings: What the report sees of the config.
        workdir: Folder of the run.
    """

    def __init__(self, settings: ReportSettings, workdir: epath.PathLike):
        """Point to the records of a run.

        Args:
            settings: Of its experiment.
            workdir: Its folder, with the stages before the report complete.
        """
        self.settings = settings
        self.workdir = epath.Path(workdir)
        self._found: dict[str, Any] = {}

    def of(self, section: _Computed[_V]) -> _V:
        """Return what a section finds in these records, computed once."""
        if section.name not in self._found:
            self._found[section.name] = section.compute(self)
        return self._found[section.name]

    def bootstrap(self, questions: int) -> Bootstrap:
        """Return the resamples of so many questions, the same at every call."""
        return Bootstrap(questions, self.settings.sweep.bootstrap, self.settings.sweep.bootstrap_seed)

    @cached_property
    def stages(self) -> dict[str, dict[str, Any]]:
        """The record of every complete stage, by its name."""
        return stage_records.of_stages(self.workdir)

    @cached_property
    def bank(self) -> pa.Table:
        """Rows of the sample bank at all temperatures, with the columns of `solution_lines.with_lines`."""
        return self._rows("bank")

    @cached_property
    def search(self) -> pa.Table:
        """The same of all searches; no row where nothing searches."""
        return self._rows("search") if self.settings.searches else self.bank.slice(0, 0)

    def _rows(self, stage: str) -> pa.Table:
        columns = tuple(dict.fromkeys((*COLUMNS, *COUNTED, "gold", "finished", "subject")))
        folder = self.workdir / stage
        return solution_lines.with_lines(sample_rows.read_folder(folder, columns), folder, self.task.steps)

    @cached_property
    def base(self) -> pa.Table:
        """Rows of the bank at the sampler's temperature."""
        return temperatures.rows_at(self.bank, self.settings.temperature)

    @cached_property
    def chosen(self) -> temperatures.Chosen:
        """The temperature that won on validation, by strategy and budget."""
        return validated.chosen(self.settings.choice, {"tune": self.workdir / "tune"})

    @cached_property
    def on_validation(self) -> dict[tuple[str, int], dict[float, np.ndarray]]:
        """Each validation question's accuracy `[Q]`, by validated strategy and budget, and by temperature."""
        assert self.settings.choice is not None
        return validated.accuracies_of(self.settings.choice, self.workdir / "tune")

    @cached_property
    def bank_samples(self) -> dict[float, int]:
        """Samples of a question that the bank holds, by temperature."""
        return self.settings.rules.bank.at(self.chosen)

    @cached_property
    def measured(self) -> Measured:
        """Each question's accuracy, by strategy and budget."""
        return measured.measure(self.settings.rules, self.bank, self.search, chosen=self.chosen, verifier=self.verifier)

    @property
    def revising(self) -> Revising:
        """Settings that strategies that revise ask of the experiment."""
        return Revising(self.settings.revision.view, self.settings.judges, self.settings.chains.verifier)

    @property
    def verifier(self) -> str | None:
        """The verifier that has scored the searches that revise; `None` where none does."""
        return (self.stages.get("search", {}).get("result") or {}).get("verifier")

    @property
    def questions(self) -> Sequence[str]:
        """Ids of all test questions."""
        return self.measured.samples.questions

    @property
    def binned(self) -> bool:
        """Whether there are questions enough for bins of difficulty and folds."""
        return enough(len(self.questions), self.settings.sweep.folds)

    @cached_property
    def ease(self) -> dict[str, dict[str, float]]:
        """Ease of each question, by notion; see `Measured.ease`."""
        return self.measured.ease(self.settings.aggregate)

    @cached_property
    def trained(self) -> dict[str, Trained] | None:
        """Every model that the run trained; `None` where the policy or its verifier was not trained here."""
        return trained_lib.models(self.workdir)

    @cached_property
    def prompts(self) -> dict[str, int]:
        """Tokens of every test question's prompt, the begin mark included."""
        return trained_lib.prompt_tokens(self.settings.questions, self._data)

    @cached_property
    def references(self) -> dict[str, str] | None:
        """Reference solutions of the test questions; `None` where the models were trained elsewhere."""
        if self.trained is None:
            return None
        return {
            example.id: example.solution for example in loader.load(self.settings.questions.data, self._data)[1].test
        }

    @property
    def _data(self) -> epath.Path:
        return self.workdir / "data"

    @cached_property
    def task(self) -> Task:
        """The task of the questions."""
        return loader.task(self.settings.questions.data)

    @cached_property
    def answered(self) -> dict[str, pa.Table]:
        """Rows of the greedy answers, by model."""
        return greedy.read(self.workdir / "greedy")

    @cached_property
    def right(self) -> dict[str, dict[str, bool]]:
        """Whether each model's greedy answer to each question is right."""
        return right_answers(self.answered)

    @cached_property
    def missing(self) -> list[tuple[Any, ...]]:
        """(strategy, budget, question, seed, sample) of every result that should exist and does not."""
        greedy_ones = (
            (f"greedy:{model}", 1, question, 0, 0)
            for model, known in self.right.items()
            for question in self.questions
            if question not in known
        )
        return [*self.measured.missing, *greedy_ones]

    @cached_property
    def subjects(self) -> dict[str, str]:
        """Subject of each question."""
        return dict(zip(*(self.bank[name].to_pylist() for name in ("question", "subject")), strict=True))

    def judged_by(self, verifier: str) -> pa.Table:
        """Return the rows of `base` with the scores of a verifier, see `verifier_scores.judged_by`."""
        return verifier_scores.judged_by(self.base, verifier, self.workdir / "rescore")

    @cached_property
    def answers(self) -> pa.Table:
        """Rows of the chains stage, with the scores of all verifiers."""
        found = revision_chains.read(self.workdir / "chains")
        named = any(verifier.named for verifier in self.settings.verifiers)
        return verifier_scores.with_further(found, self.workdir / "rescore_chains") if named else found

    @property
    def answer_aggregates(self) -> Mapping[str, Aggregation]:
        """Aggregation of step scores into one of an answer, by verifier; see `verifier_scores.of_answers`."""
        named = [verifier for verifier in self.settings.verifiers if verifier.named]
        return {**self.settings.judges.aggregates, **{verifier.name: verifier.aggregate for verifier in named}}

    @cached_property
    def splits(self) -> Splits:
        """The chains of revisions, and every split of every budget."""
        verifier = self.settings.judges.chosen(self.settings.chains.verifier, self.workdir / "orm")
        return answer_chains.splits(
            self.settings.chains, self.answers, self.ease["oracle"], verifier, self.answer_aggregates
        )


def right_answers(tables: Mapping[str, pa.Table]) -> dict[str, dict[str, bool]]:
    """Return whether each model's greedy answer to each question is right, from what `greedy.read` returns."""
    return {
        model: dict(zip(table["question"].to_pylist(), table["correct"].to_pylist(), strict=True))
        for model, table in tables.items()
    }
