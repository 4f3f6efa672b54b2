"""Verifiers of revisions: which there are, which one selects, and how well each selects on questions of training.

The outcome-reward models were trained to judge revisions, the process-reward model of base samples was not, and is the
better judge where it was trained on much more. So the one that selects is chosen by how it selects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from etils import epath

from ttcjax.config import Aggregation, ExperimentConfig, InView
from ttcjax.engine.engine import Engine, Prompt
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.search.chains import Reviser
from ttcjax.verify.select import choose_in_chains

SELECTION = "selection"
"""Entry of the ORM stage's result: `questions`, `accuracy[verifier]`, and the verifier `chosen` by it."""


def aggregate_of(verifier: str, aggregate: Aggregation) -> Aggregation:
    """Return how the scores of an answer's steps become the answer's: of an ORM the last step's is it.

    Args:
        verifier: One of `Judges.names`.
        aggregate: That of the PRM.
    """
    return aggregate if verifier == "prm" else "last"


@dataclass(frozen=True)
class Judges:
    """The verifiers of an experiment's revisions."""

    names: tuple[str, ...]
    """The ORMs of `orm.variants`, where the experiment trains any, then `prm`."""
    aggregate: Aggregation
    """How the PRM's scores of steps become one of an answer; of the ORMs the last step's is the answer's."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Judges:
        """Return the verifiers that an experiment has."""
        return cls((*(config.orm.variants if config.orm.revisions else ()), "prm"), config.prm.aggregate)

    def chosen(self, named: str, orm: epath.Path | None) -> str:
        """Return the verifier that selects among revisions.

        Args:
            named: `chains.verifier`: it, or `validation` for the one that the ORM stage chose.
            orm: Folder of the ORM stage.

        Raises:
            UserError: The ORM stage is not complete, or does not say which one selects best.
        """
        if named != "validation":
            return named
        if self.names == ("prm",):
            return "prm"
        record = None if orm is None else records.read_complete(orm)
        try:
            found = (record or {})["result"][SELECTION]["chosen"]
        except (KeyError, TypeError):
            found = None
        if found not in self.names:
            raise UserError(
                f"which verifier selects best among revisions is not known in {orm}: run the orm stage, or name one "
                "with --chains.verifier"
            )
        return found

    def reviser(self, engine: Engine, prompts: Sequence[Prompt], view: InView, verifier: str) -> Reviser:
        """Return a reviser whose answers a verifier scores as it was trained to.

        Args:
            engine: With the revision model and that verifier.
            prompts: One a question.
            view: What the revision model has in view.
            verifier: One of `names`; `history` sees the answers before.
        """
        how = self.aggregates[verifier]
        return Reviser(engine, prompts, view, history=verifier == "history", aggregate=how)

    @property
    def aggregates(self) -> dict[str, Aggregation]:
        """Aggregation of step scores into one of an answer, by verifier in the order of the names."""
        return {name: aggregate_of(name, self.aggregate) for name in sorted(self.names)}


@dataclass(frozen=True)
class Revising:
    """Settings that strategies that revise ask of an experiment, beside those of others."""

    view: InView
    judges: Judges
    verifier: str
    """Which verifier selects: `chains.verifier`."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Revising:
        """Return what they ask of an experiment."""
        return cls(config.revision.view, Judges.of(config), config.chains.verifier)

    @property
    def needs(self) -> tuple[str, ...]:
        """The stages that train the revision model and the verifiers among which one selects."""
        return ("revision", *["orm"] * (self.judges.names != ("prm",) and self.verifier != "prm"))

    def selecting(self, inputs: Mapping[str, epath.Path]) -> str:
        """Return the verifier that selects.

        Args:
            inputs: Has the folder of the ORM stage.

        Raises:
            UserError: As `Judges.chosen`.
        """
        return self.judges.chosen(self.verifier, inputs.get("orm"))

    def in_view(self, lengths: Sequence[float], question: float, room: float) -> float:
        """Return the tokens in view of an answer, the question again where it is restated among them; see `Context`.

        Args:
            lengths: Tokens of the answers that it revises, the newest last.
            question: Tokens of the question's prompt, without its begin mark.
            room: For answers in view and the question again.
        """
        shown = list(lengths[-self.view.max_answers :])
        total = sum(shown) + question * self.view.restate
        while shown and total > room:
            total -= shown.pop(0)
        return total if shown else 0.0


def stage_of(verifier: str) -> str:
    """Return the path of the stage that trained a verifier."""
    return verifier if verifier == "prm" else f"orm/{verifier}"


def selection_accuracy(groups_QPS: np.ndarray, correct_QPS: np.ndarray, scores_QPS: np.ndarray) -> float:
    """Return the share of questions whose answer, chosen from all of their chains, is right.

    Chosen as from the chains of the test (`hierarchical`, Snell et al. 2024, section 6.2), from the heads of s answers
    of the chains; the mean over s = 1, 2, .., S, so that more than one choice a question counts.

    Args:
        groups_QPS: Ids of groups of equal answers, `[Q, P, S]`; -1 is unparsable.
        correct_QPS: Whether each is right.
        scores_QPS: The verifier's, from 0 to 1.
    """
    found = []
    for s in range(1, groups_QPS.shape[2] + 1):
        place_Q = choose_in_chains(groups_QPS[..., :s], scores_QPS[..., :s], "hierarchical")
        right_QN = correct_QPS[..., :s].reshape(len(groups_QPS), -1)
        picked_Q = np.take_along_axis(right_QN, np.maximum(place_Q, 0)[:, None], axis=1)[:, 0]
        found.append(np.mean(picked_Q & (place_Q >= 0)))
    return float(np.mean(found))


def best(accuracy: Mapping[str, float]) -> str:
    """Return the verifier with the highest accuracy; of equal ones the first."""
    return max(accuracy, key=lambda name: accuracy[name])
