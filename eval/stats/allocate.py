"""Allocation of a budget: the strategy chosen by difficulty, and shares over questions.

Snell et al. 2024, section 3.2: the strategy that is best for a difficulty bin is chosen on one half of the questions
and judged on the other, and the other way round.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ttcjax.config import SweepConfig
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.runtime.errors import UserError


@dataclass(frozen=True, eq=False)
class Choice:
    """Strategies chosen for the questions of a test, each without the question's own fold.

    Attributes:
        accuracy: Of each question under the strategies chosen for it, `[Q]`, averaged over the repeats.
        chosen: Place of the strategy, `[repeats, Q]`.
        shares: How often each strategy is chosen in a bin, `[bins, S]`; bins in rising order.
        bins_Q: The bin of each question.
        bins: The numbers of bins, `[bins]`, rising.
        bootstrap: The resamples of the questions.
        drawn: Questions of each bin in each resample, `[bins, 1 + R]`; in the first place all as they are.
        right: Sum of their accuracies under what was chosen anew in that resample, `[bins, 1 + R]`.

    `drawn` and `right` are for `means`.
    """

    accuracy: np.ndarray
    chosen: np.ndarray
    shares: np.ndarray
    bins_Q: np.ndarray
    bins: np.ndarray
    bootstrap: Bootstrap
    drawn: np.ndarray
    right: np.ndarray

    def means(self, bins: Collection[int] | None = None) -> np.ndarray:
        """Return the mean accuracy over the questions of some bins in each resample, `[1 + R]`; of all by default.

        Not a number where a resample has no question of them.
        """
        kept = np.ones(len(self.bins), bool) if bins is None else np.isin(self.bins, list(bins))
        with np.errstate(invalid="ignore"):
            found = self.right[kept].sum(axis=0) / self.drawn[kept].sum(axis=0)
        # Resamples differ as data sets would, around a mean of their own, as each chooses with fewer questions than
        # there are: their centre here is that of the same resamples of what was chosen.
        of_chosen = self.bootstrap.means(self.accuracy, self.inside(bins))
        found[1:] += np.nanmean(of_chosen[1:]) - np.nanmean(found[1:])
        return found

    def estimate(self, bins: Collection[int] | None = None) -> Estimate:
        """Return the accuracy in some bins, all by default, with an interval that chooses anew."""
        return self.bootstrap(self.accuracy, self.inside(bins), means_R=self.means(bins))

    def less(self, other: np.ndarray | Choice, bins: Collection[int] | None = None) -> Estimate:
        """Return the accuracy less another of the same questions, with an interval that chooses anew.

        Args:
            other: Each question's accuracy `[Q]`, or what was chosen in other bins from the same resamples.
            bins: Those of this choice whose questions count; all by default, and always against another choice.
        """
        inside_Q = self.inside(bins)
        if isinstance(other, Choice):
            values_Q, means_R = other.accuracy, other.means()
        else:
            values_Q, means_R = other, self.bootstrap.means(other, inside_Q)
        return self.bootstrap.difference(self.accuracy - values_Q, inside_Q, means_R=self.means(bins) - means_R)

    def inside(self, bins: Collection[int] | None = None) -> np.ndarray | None:
        """Return which questions stand in some bins, `[Q]`; `None` for all."""
        return None if bins is None else np.isin(self.bins_Q, list(bins))


def compute_optimal(
    accuracy_SQ: np.ndarray,
    bins_Q: np.ndarray,
    bootstrap: Bootstrap,
    *,
    folds: int = 2,
    repeats: int = 1,
    seed: int = 0,
) -> Choice:
    """Choose the best strategy of each difficulty bin, on other questions than those it is judged on.

    Every bin is cut at random into folds of a size or one apart. A question gets the strategy that is likely best for
    its bin by the questions of all other folds, see `likely_differences`; of equals the first. The same is done anew in
    every resample of the questions, within the same folds: copies of a question never stand on both sides, and an
    interval of what was chosen knows that another choice might have been made.

    Args:
        accuracy_SQ: Each question's chance of a right answer under each strategy, all at one budget.
        bins_Q: The bin of each question.
        bootstrap: Resamples of the questions.
        folds: Their number; the paper has 2.
        repeats: Other cuts, averaged, so that the result depends less on one of them.
        seed: Decides the cuts.

    Raises:
        UserError: A bin has fewer questions than folds, or there are fewer than two folds.
    """
    if folds < 2:
        raise UserError("a strategy is chosen on one fold and judged on another: take at least 2 folds")
    names, bin_Q = np.unique(bins_Q, return_inverse=True)
    smallest = int(np.bincount(bin_Q).min())
    if smallest < folds:
        raise UserError(f"a bin of {smallest} questions cannot be cut into {folds} folds: take more questions")
    strategies, questions = accuracy_SQ.shape
    centre_Q = accuracy_SQ.mean(axis=0)
    # What is summed over the questions of a cell: their number, accuracies, and differences from the mean strategy.
    columns_QC = np.concatenate(
        [np.ones((1, questions)), accuracy_SQ, accuracy_SQ - centre_Q, (accuracy_SQ - centre_Q) ** 2]
    ).T
    rng = np.random.default_rng(seed)
    chosen = np.zeros((repeats, questions), np.int64)
    resamples = len(bootstrap.counts)
    drawn, right = np.zeros((len(names), resamples)), np.zeros((len(names), resamples))
    for repeat in range(repeats):
        cells = list(_cells(bin_Q, folds, rng))
        sums = [bootstrap.counts[:, cell] @ columns_QC[cell] for cell in cells]
        count_BFR, *rest = np.split(
            np.stack(sums).reshape(len(names), folds, resamples, -1), [1, 1 + strategies, 1 + 2 * strategies], axis=3
        )
        right_BFRS, differs_BFRS, squares_BFRS = rest
        if not repeat:
            drawn = count_BFR[..., 0].sum(axis=1)
        for fold in range(folds):
            others = (np.delete(x, fold, axis=1).sum(axis=1) for x in (count_BFR[..., 0], differs_BFRS, squares_BFRS))
            best_BR = np.argmax(likely_differences(*others), axis=2)
            right += np.take_along_axis(right_BFRS[:, fold], best_BR[..., None], axis=2)[..., 0] / repeats
            for b in range(len(names)):
                chosen[repeat, cells[b * folds + fold]] = best_BR[b, 0]
    taken = np.take_along_axis(accuracy_SQ, chosen, axis=0)
    shares = np.array(
        [np.bincount(chosen[:, bin_Q == b].ravel(), minlength=strategies) for b in range(len(names))], np.float64
    )
    shares /= shares.sum(axis=1, keepdims=True)
    return Choice(taken.mean(axis=0), chosen, shares, bins_Q, names, bootstrap, drawn, right)


def likely_differences(count_BR: np.ndarray, sum_BRS: np.ndarray, squares_BRS: np.ndarray) -> np.ndarray:
    """Return how much better each strategy likely is than their mean in each bin, `[B, R, S]`.

    With few questions a bin, the strategy with the highest mean there is the one that was lucky there. So what a bin
    says is drawn towards what all say, and what all say towards no difference, each by as much as chance explains of
    it (the empirical Bayes estimate of normal means; Efron and Morris 1973). Where chance explains all, there is no
    difference.

    Args:
        count_BR: Questions of each bin, in each resample.
        sum_BRS: Sum over them of each strategy's accuracy less the mean over the strategies.
        squares_BRS: Sum of the squares of the same.
    """
    all_R = np.maximum(count_BR.sum(axis=0), 1.0)
    mean_RS, chance_R = _mean_and_chance(all_R, sum_BRS.sum(axis=0), squares_BRS.sum(axis=0))
    mean_BRS, chance_BR = _mean_and_chance(count_BR, sum_BRS, squares_BRS)
    differs_BRS = np.where(count_BR[..., None] > 0, mean_BRS - mean_RS, 0.0)
    known_BR = np.isfinite(chance_BR)
    # A bin is part of all, so that its difference from all has so much less of chance.
    chance_BR = np.where(known_BR, chance_BR, 0.0) * (1 - count_BR / all_R)
    found_BR = np.where(known_BR, (differs_BRS**2).sum(axis=2), 0.0)
    # How far bins truly differ is one number of them all; those with fewer questions are drawn more.
    true_R = np.maximum((found_BR - chance_BR).sum(axis=0), 0.0) / np.maximum(known_BR.sum(axis=0), 1)
    weight_BR = np.where(known_BR & (true_R > 0), true_R / np.maximum(true_R + chance_BR, 1e-300), 0.0)
    found_R = (mean_RS**2).sum(axis=1)
    weight_R = np.where(found_R > chance_R, 1 - chance_R / np.maximum(found_R, 1e-300), 0.0)
    return weight_R[:, None] * mean_RS + weight_BR[..., None] * differs_BRS


def _mean_and_chance(count: np.ndarray, total: np.ndarray, squares: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the means of strategies `[..., S]`, and the sum over them of their squared standard errors `[...]`.

    The latter is infinite where a single question tells no spread.
    """
    n = np.maximum(count, 1.0)
    mean = total / n[..., None]
    spread = np.maximum(squares / n[..., None] - mean**2, 0.0).sum(axis=-1)
    return mean, np.where(n > 1, spread / np.maximum(n - 1, 1.0), np.inf)


def _cells(bin_Q: np.ndarray, folds: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Cut every bin at random into folds, and yield the questions of each, by bin and fold.

    Sizes are the same or one apart.
    """
    for number in range(int(bin_Q.max()) + 1):
        inside = rng.permutation(np.flatnonzero(bin_Q == number))
        fold = np.arange(len(inside)) * folds // len(inside)
        for k in range(folds):
            # Sorted, as the order of a sum must not decide between equals.
            yield np.sort(inside[fold == k])


def cuts(bins_Q: np.ndarray, folds: int, rng: np.random.Generator) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Cut every bin at random into folds, and yield for each fold the questions of the bin outside it and in it.

    Args:
        bins_Q: The bin of each question.
        folds: Their number; sizes are the same or one apart.
        rng: Decides the cuts.
    """
    _, bin_Q = np.unique(bins_Q, return_inverse=True)
    cells = list(_cells(bin_Q, folds, rng))
    for i, judged in enumerate(cells):
        first = i - i % folds
        others = [cells[j] for j in range(first, first + folds) if j != i]
        yield np.sort(np.concatenate(others)), judged


def choose(settings: SweepConfig, accuracy_SQ: np.ndarray, bins_Q: np.ndarray, bootstrap: Bootstrap) -> Choice:
    """Return `compute_optimal` with the folds, their repeats and the seed of an experiment."""
    return compute_optimal(
        accuracy_SQ,
        bins_Q,
        bootstrap,
        folds=settings.folds,
        repeats=settings.fold_repeats,
        seed=settings.seed,
    )


def regret(accuracy_SQ: np.ndarray, chosen_Q: np.ndarray) -> np.ndarray:
    """Return how far each question stays below the best strategy for it alone, `[Q]`.

    That best one is picked on the numbers it is judged by, so chance makes the regret larger than it is.

    Args:
        accuracy_SQ: As for `compute_optimal`.
        chosen_Q: Each question's accuracy under what was chosen.
    """
    return accuracy_SQ.max(axis=0) - chosen_Q


def accuracy_at(grid_G: Sequence[int], accuracy_GQ: np.ndarray, counts_Q: np.ndarray) -> np.ndarray:
    """Return each question's accuracy at its own number of generations, `[Q]`.

    Estimates exist at the budgets of the grid; between two of them a question's accuracy is taken to be linear in the
    logarithm of the budget.

    Args:
        grid_G: Positive and rising.
        accuracy_GQ: Each question's accuracy at each of them.
        counts_Q: Generations of each question, from the first to the last of the grid; they need not be whole.
    """
    logs = np.log(np.asarray(grid_G, np.float64))
    at = np.clip(np.searchsorted(grid_G, counts_Q, side="right") - 1, 0, max(len(logs) - 2, 0))
    above = np.minimum(at + 1, len(logs) - 1)
    width = np.where(above > at, logs[above] - logs[at], 1.0)
    part = (np.log(counts_Q) - logs[at]) / width
    question = np.arange(accuracy_GQ.shape[1])
    return (1 - part) * accuracy_GQ[at, question] + part * accuracy_GQ[above, question]


def softmax_weights(difficulty_Q: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """Return the share of a total budget of each question: the softmax of its difficulty.

    Args:
        difficulty_Q: Higher is harder.
        temperature: Small positive ones give all to the hardest question, small negative ones all to the easiest,
            large ones the same to every question.

    Raises:
        UserError: The temperature is 0.
    """
    if not abs(temperature) > 0:
        raise UserError(f"the temperature of an allocation must be positive or negative, not {temperature:g}")
    scaled = np.asarray(difficulty_Q, np.float64) / temperature
    weights = np.exp(scaled - scaled.max())
    return weights / weights.sum()


def share_out(total: int, weights_Q: np.ndarray, least: int = 1, most: int | None = None) -> np.ndarray:
    """Return whole generations for each question, `least` or more, that sum to `total` exactly.

    Each question gets `least` and its share of the rest, rounded down; what is left over goes one by one to the
    questions with the largest remainders, of equals to the first (Hamilton's method). What would take a question
    beyond `most` is shared out to the others in the same way; among others without any weight, evenly.

    Args:
        total: Generations for all questions.
        weights_Q: Not negative, with a positive sum.
        least: Generations that every question gets.
        most: Generations that no question exceeds, such as the samples there are.

    Raises:
        UserError: The total is not enough for `least` each, or more than `most` each.
    """
    weights = np.asarray(weights_Q, np.float64)
    questions = len(weights)
    rest = total - least * questions
    if rest < 0:
        raise UserError(
            f"{total} generations are fewer than {least} for each of {questions} questions: raise the total"
        )
    room = rest if most is None else most - least
    if rest > room * questions:
        raise UserError(f"{total} generations are more than {most} for each of {questions} questions: lower the total")
    exact = np.zeros(questions)
    open_Q = np.ones(questions, bool)
    while True:
        left = rest - room * int((~open_Q).sum())
        among = weights[open_Q] if weights[open_Q].sum() > 0 else np.ones(int(open_Q.sum()))
        exact[open_Q] = left * among / among.sum() if len(among) else 0.0
        beyond = open_Q & (exact > room)
        if not beyond.any():
            break
        exact[beyond] = room
        open_Q &= ~beyond
    whole = np.floor(exact).astype(np.int64)
    remainder = np.where(whole < room, exact - whole, -1.0)
    whole[np.argsort(-remainder, kind="stable")[: rest - int(whole.sum())]] += 1
    return whole + least


def pass_gains(chance_Q: np.ndarray, most: int) -> np.ndarray:
    """Return the logarithm of what one more generation after k brings to pass@k, `[most, Q]`: of p (1 - p)^k.

    Args:
        chance_Q: p, the chance of a right sample, 0 to 1.
        most: k goes from 0 up to it.
    """
    chance = np.asarray(chance_Q, np.float64)
    given = np.arange(most)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.log(chance) + np.where(given > 0, given * np.log1p(-chance), 0.0)


def curve_gains(accuracy_k: np.ndarray) -> np.ndarray:
    """Return what each generation brings on a curve's least concave majorant, one for each step: they never rise.

    So many generations as make a curve that sags rise again count for their mean gain, as a greedy choice needs it.

    Args:
        accuracy_k: Accuracy of 1, 2, ... generations.
    """
    corners: list[int] = []
    for k, value in enumerate(accuracy_k):
        while len(corners) > 1:
            first, last = corners[-2:]
            if (value - accuracy_k[first]) * (last - first) < (accuracy_k[last] - accuracy_k[first]) * (k - first):
                break
            corners.pop()
        corners.append(k)
    return np.diff(np.interp(np.arange(len(accuracy_k)), corners, accuracy_k[corners]))


def share_greedily(total: int, gains_kQ: np.ndarray, least: int = 1) -> np.ndarray:
    """Return whole generations for each question, each given where it helps most by what is foreseen.

    Where gains fall with k, giving one at a time to the largest gain is the best allocation for them (Damani et al.
    2024, who train a predictor of them). Of equal gains the smaller k goes first, then the first question.

    Args:
        total: Generations for all questions.
        gains_kQ: What one more brings to a question that has k already, `[most, Q]`, on any scale that keeps order;
            never rising with k.
        least: Generations that every question gets.

    Raises:
        UserError: The total is not enough for `least` each, or more than `most` each.
    """
    most, questions = gains_kQ.shape
    if not least * questions <= total <= most * questions:
        raise UserError(
            f"{total} generations are not {least} to {most} for each of {questions} questions: take another total"
        )
    counts = np.full(questions, least)
    rest = total - least * questions
    if rest:
        gains = gains_kQ[least:]
        last = np.partition(gains.ravel(), -rest)[-rest]  # the smallest gain that is still taken
        counts += (gains > last).sum(axis=0)
        equal = np.flatnonzero(gains.ravel() == last)[: total - int(counts.sum())]
        counts += np.bincount(equal % questions, minlength=questions)
    return counts
