"""Chains of answers laid out as arrays, and what every split of a budget over them gives.

Every pair of s answers a chain and p chains is answered from one set of chains: the first s answers of a chain are
a chain of s, and different groups of p chains are independent. Chains have the lengths that the config fixes
beforehand, whatever the answers, so the estimates are unbiased.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ttcjax.config import Aggregation, ChainsConfig
from ttcjax.eval.records import verifier_scores
from ttcjax.runtime.errors import UserError
from ttcjax.verify.select import CHAIN_RULES, choose_in_chains, group_answers

SELECTORS = ("hierarchical", "majority")
"""The two that the paper compares (Snell et al. 2024, section 6.2); `last` and `best` are for reference."""


@dataclass(frozen=True, eq=False)
class AnswerChains:
    """Answers laid out as arrays `[Q, C, S]`: question, chain, place; chains may be shorter than S.

    Attributes:
        questions: Question ids, `[Q]`.
        lengths: Answers of each chain, `[C]`, none longer than the one before.
        groups: Ids of groups of equal answers within a question; -1 is unparsable.
        correct: Whether the answer is right.
        scores: Of each verifier that read them; 0 where there is nothing.
        kept: Whether an answer took the place of the one before it, where a strategy decides that.
    """

    questions: tuple[str, ...]
    lengths: np.ndarray
    groups: np.ndarray
    correct: np.ndarray
    scores: dict[str, np.ndarray]
    kept: np.ndarray

    @classmethod
    def from_table(
        cls,
        table: pa.Table,
        lengths: Sequence[int],
        aggregates: Mapping[str, Aggregation] | None = None,
        grade_equal: Callable[[str, str], bool] | None = None,
    ) -> AnswerChains:
        """Lay out the rows of the chains stage.

        Args:
            table: Rows of `chains.SCHEMA`, in any order.
            lengths: Answers that each chain should have.
            aggregates: As for `verifier_scores.of_answers`.
            grade_equal: Tells whether two different answers are equal; `None` compares canonical strings.

        Raises:
            UserError: A row is missing, stands twice, or has no place.
        """
        questions = sorted(set(table["question"].to_pylist()))
        place = {question: i for i, question in enumerate(questions)}
        q = np.array([place[name] for name in table["question"].to_pylist()], np.int64)
        c, s = (table[name].to_numpy().astype(np.int64) for name in ("chain", "place"))
        shape = (len(questions), len(lengths), max(lengths))
        wanted = np.broadcast_to(np.arange(shape[2]) < np.asarray(lengths)[:, None], shape)
        if len(q) and (c.max() >= shape[1] or s.max() >= shape[2]):
            raise UserError("the chains are longer or more than this config has: move their folder away and run again")
        count = np.zeros(shape, np.int64)
        np.add.at(count, (q, c, s), 1)
        if (count != wanted).any():
            raise UserError("answers of the chains are missing or stand twice: move their folder away and run again")

        def laid_out(values: np.ndarray, empty: float) -> np.ndarray:
            array = np.full(shape, empty, values.dtype)
            array[q, c, s] = values
            return array

        answers = np.array(table["answer"].to_pylist(), object)
        ids = np.full(len(q), -1, np.int64)
        for i in range(len(questions)):
            rows = np.flatnonzero(q == i)
            ids[rows] = group_answers(answers[rows].tolist(), grade_equal)
        judged = verifier_scores.of_answers(table, aggregates or {})
        scores = {name: laid_out(values, 0.0) for name, values in judged.items() if not np.isnan(values).any()}
        return cls(
            questions=tuple(questions),
            lengths=np.asarray(lengths),
            groups=laid_out(ids, -1),
            correct=laid_out(table["correct"].to_numpy(zero_copy_only=False), False),
            scores=scores,
            kept=laid_out(table["kept"].fill_null(False).to_numpy(zero_copy_only=False), False),
        )

    def pass_at_1(self, place: int) -> np.ndarray:
        """Return the share of right answers at one place of the chains, `[Q]`."""
        return self.correct[:, self.lengths > place, place].mean(axis=1)

    def turns(self, place: int) -> np.ndarray:
        """Return how often the answer after `place` is right and wrong, by what it follows.

        Returns:
            `[Q, 2, 2]` counts over the chains, index 1 for right: first of the answer at `place`, then of the next.
        """
        chains = self.lengths > place + 1
        before, after = self.correct[:, chains, place], self.correct[:, chains, place + 1]
        counts = np.zeros((len(self.questions), 2, 2))
        for a in (0, 1):
            for b in (0, 1):
                counts[:, a, b] = ((before == a) & (after == b)).sum(axis=1)
        return counts

    def standing(self, place: int) -> np.ndarray:
        """Return the share of right answers among those last kept up to a place, `[Q]`."""
        last = place - np.argmax(self.kept[:, :, place::-1], axis=2)
        return np.take_along_axis(self.correct, last[..., None], axis=2)[..., 0].mean(axis=1)

    def accuracy(self, sequential: int, parallel: int, rule: str, verifier: str | None = None) -> np.ndarray:
        """Return each question's chance that the answer chosen from p chains of s is right, `[Q]`.

        The chains that are long enough are cut into groups of p, a rest is not used, and the groups averaged.

        Args:
            sequential: s.
            parallel: p.
            rule: One of `ttcjax.verify.select.CHAIN_RULES`.
            verifier: Whose scores select; votes (`majority` and `last`) do without, the first of equals wins.

        Raises:
            UserError: There are not p chains of s answers.
        """
        enough = int((self.lengths >= sequential).sum())
        if enough < parallel:
            raise UserError(f"{parallel} chains of {sequential} answers are needed, and there are {enough}")
        Q, blocks = len(self.questions), enough // parallel
        scores = None if verifier is None else self.scores[verifier]

        def cut(values: np.ndarray) -> np.ndarray:
            return values[:, : blocks * parallel, :sequential].reshape(Q * blocks, parallel, sequential)

        chosen = choose_in_chains(cut(self.groups), None if scores is None else cut(scores), rule)
        right = cut(self.correct).reshape(Q * blocks, -1)[np.arange(Q * blocks), chosen] & (chosen >= 0)
        return right.reshape(Q, blocks).mean(axis=1)


def strategy_name(sequential: int, parallel: int) -> str:
    """Return how a split of a budget is called."""
    return f"revise:s={sequential},p={parallel}"


def pairs(budget: int) -> list[tuple[int, int]]:
    """Return (s, p) with s * p equal to a power of two, s a power of two, from parallel to sequential."""
    return [(1 << i, budget >> i) for i in range(budget.bit_length())]


@dataclass(frozen=True, eq=False)
class Splits:
    """Accuracies under every split of every budget.

    Attributes:
        chains: The answers.
        refined: Those of `refine`, a chain a question, where the config asks for them.
        accuracy: Each question's chance of a right answer `[Q]`, by s, p and rule.
        verifier: Whose scores select.
    """

    chains: AnswerChains
    refined: AnswerChains | None
    accuracy: dict[tuple[int, int, str], np.ndarray]
    verifier: str

    def by_ratio(self, rule: str) -> dict[int, dict[str, np.ndarray]]:
        """Return each question's accuracy under a rule, by budget N and split."""
        found: dict[int, dict[str, np.ndarray]] = {}
        for (s, p, name), values in self.accuracy.items():
            if name == rule:
                found.setdefault(s * p, {})[strategy_name(s, p)] = values
        return found


def splits(
    settings: ChainsConfig,
    table: pa.Table,
    questions: Collection[str],
    verifier: str,
    aggregates: Mapping[str, Aggregation] | None = None,
) -> Splits:
    """Answer with every split of every budget.

    Args:
        settings: Lengths and budgets of the chains.
        table: Rows of the chains stage.
        questions: Those of the bank.
        verifier: Whose scores select, see `ttcjax.search.revision_verifiers.Judges.chosen`.
        aggregates: As for `verifier_scores.of_answers`.

    Raises:
        UserError: A question of the chains has no base samples, or one of the test has no chains.
    """
    chains = AnswerChains.from_table(table.filter(pc.field("strategy") == "revise"), settings.lengths, aggregates)
    missing = [question for question in chains.questions if question not in questions]
    if missing:
        raise UserError(f"the bank has no samples of {missing[0]}: move the bank and chains folders away and run again")
    expected = min(settings.questions or len(questions), len(questions))
    if len(chains.questions) != expected:
        raise UserError(
            f"the chains hold {len(chains.questions)} of {expected} test questions: move their folder away and "
            "run again"
        )
    refined = None
    if settings.refine:
        refined = AnswerChains.from_table(
            table.filter(pc.field("strategy") == "refine"), [1 + settings.refine], aggregates
        )
    accuracy = {
        (s, p, rule): chains.accuracy(s, p, rule, verifier)
        for n in settings.budgets
        for s, p in pairs(n)
        for rule in CHAIN_RULES
    }
    return Splits(chains, refined, accuracy, verifier)
