"""Several seeds of one experiment together: each number over seeds, with an interval that has training in it.

A run's own intervals are of its questions, as if its models were the only ones that training gives. Here seeds and
questions are both random: training again gives other models, and another test set other questions. All seeds answer the
same questions, and the statistic of a run is taken for

    truth + question + seed + question x seed,

questions being what a resample of them changes in all seeds alike, and question x seed what it changes in each seed for
itself. With the same resamples of questions in every seed, the bootstrap tells the first and the last apart.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from ttcjax.eval.stats import draws as draws_lib
from ttcjax.eval.stats.draws import Draws

VALUES = ("mean", "times")
"""Names of the estimate of a cell of a summary; `times` is a ratio, and combined by its logarithm."""
CHOSEN = (("s", "p"), ("wins", "r"))
"""Keys of what is chosen together, a split and an R up to which one side wins: halfway between two is no choice."""
PER_SEED = "per_seed"
"""Key of the estimates of single seeds in a cell over seeds; null where a seed has none."""
LEVEL = 0.95
_Z = float(stats.norm.ppf((1 + LEVEL) / 2))
_QUIET = 0.6
"""So near to the median that hardly a study with variance of training is taken for one without."""
_NOTHING = 1e-18
"""A variance below it comes from rounding."""


@dataclass(frozen=True)
class Spread:
    """A mean over seeds and how sure it is.

    Attributes:
        mean: Over seeds.
        low: Lower end of its interval.
        high: Upper end.
        questions: Standard error from questions, with these seeds.
        seeds: Standard error from training, beyond what questions in each seed explain.
        df: Degrees of freedom of the two together.
    """

    mean: float
    low: float
    high: float
    questions: float
    seeds: float
    df: float


def half_width(
    common: np.ndarray, own: np.ndarray, observed: np.ndarray, seeds: int, questions: int, level: float = LEVEL
) -> tuple[np.ndarray, np.ndarray]:
    """Return half the width of the interval of a mean over seeds, and its degrees of freedom.

    Its variance is `common`, that of its replicates, in which seeds are fixed and questions resampled, plus the
    variance of training by the number of seeds: the observed one less what questions give each seed for itself, not
    below 0. Degrees of freedom are Satterthwaite's (1946): S - 1 of the observed variance between seeds, Q - 1 of
    questions. Where seeds differ less than in `_QUIET` of all studies without any variance of training, they are those
    of questions: the quantile of so few degrees would cover too much there.

    Readers and cases of radiology are the same design (Obuchowski and Rockette 1995; Hillis 2007); this is their
    variance, bounded below by that of questions alone. What else was tried, and how much each covers, stands in
    docs/study.md.

    Args:
        common: Variance of the mean over seeds from questions.
        own: Variance of one seed's statistic from questions, without what all seeds have in common.
        observed: Variance between the statistics of seeds.
        seeds: How many, S, two or more.
        questions: How many, Q.
        level: Coverage of the interval.
    """
    between = np.maximum(observed - own, 0.0) / seeds
    variance = common + between
    told = observed > own * stats.chi2.ppf(_QUIET, seeds - 1) / (seeds - 1)
    of_seeds = np.where(told, (observed / seeds) ** 2 / (seeds - 1), 0.0)
    below = of_seeds + common**2 / max(questions - 1, 1)
    df = np.divide(variance**2, below, out=np.full(np.shape(below), np.inf), where=below > 0)
    return stats.t.ppf((1 + level) / 2, df) * np.sqrt(variance), df


def spread(values_S: np.ndarray, draws_SR: np.ndarray, questions: int, *, least_S: np.ndarray | None = None) -> Spread:
    """Return the mean of a statistic over seeds with an interval over seeds and questions, see `half_width`.

    Args:
        values_S: The statistic of each of two or more seeds.
        draws_SR: Its replicates, of the same resamples in every seed; not a number where one has nothing to tell.
        questions: How many were resampled.
        least_S: Standard error of each seed's statistic from questions, where it may be larger than the resamples say;
            they have no spread at all where every question is right, say.
    """
    seeds = len(values_S)
    known_SR = draws_SR[:, np.isfinite(draws_SR).all(axis=0)]
    common = own = 0.0
    if known_SR.shape[1] > 1:
        mean_R = known_SR.mean(axis=0)
        common = float(mean_R.var(ddof=1))
        own = float((known_SR - mean_R).var(axis=1, ddof=1).sum() / (seeds - 1))
    if least_S is not None:
        said, least = common + own * (1 - 1 / seeds), float((least_S**2).mean())  # Of one seed, in the mean over seeds.
        if said < _NOTHING:
            common, own = least, 0.0
        elif least > said:
            common, own = common * least / said, own * least / said
    observed = float(values_S.var(ddof=1))
    found = half_width(np.array([common]), np.array([own]), np.array([observed]), seeds, questions)
    half, df = (float(one[0]) for one in found)
    mean, training = float(values_S.mean()), max(0.0, observed - own) / seeds
    return Spread(mean, mean - half, mean + half, math.sqrt(common), math.sqrt(training), df)


def combine(
    summaries: Sequence[Mapping[str, Any]], draws: Sequence[Mapping[str, Draws]], questions: int
) -> dict[str, Any]:
    """Return a summary over seeds from those of each, in the same form.

    A cell with an interval has the mean over seeds, the interval over seeds and questions, and what each seed has in
    `per_seed`; of a single seed all of it is its own. Other numbers are means over seeds, whole ones the lower
    median, what is true is so only if all seeds say so, and text that differs is the first one's, one that only some
    have too: why something cannot be told of a seed holds for all together. What was chosen (`CHOSEN`) is nothing over
    seeds that chose otherwise. What a seed does not have is left out.

    Args:
        summaries: Of each seed, with JSON's own types.
        draws: The draws of each, by path.
        questions: How many were resampled.
    """
    return _combined(list(summaries), list(draws), questions, ())


def _combined(values: list[Any], draws: list[Mapping[str, Draws]], questions: int, path: tuple[str, ...]) -> Any:
    first = values[0]
    if all(isinstance(value, dict) for value in values):
        keys = [key for key in first if all(key in value for value in values)]
        found = {key: _combined([value[key] for value in values], draws, questions, (*path, key)) for key in keys}
        for chosen in CHOSEN:
            if set(chosen) <= set(keys) and any(value[key] != first[key] for value in values for key in chosen):
                found |= dict.fromkeys(chosen)
        name = next((name for name in VALUES if name in keys), None)
        if name is not None and {"low", "high"} <= set(keys):
            at = draws_lib.SEPARATOR.join(path)
            found |= _cell(values, [drawn.get(at) for drawn in draws], name, questions)
        return found
    if all(isinstance(value, list) for value in values):
        if len({len(value) for value in values}) > 1:
            return first
        return [_combined([value[i] for value in values], draws, questions, (*path, str(i))) for i in range(len(first))]
    if all(isinstance(value, bool) for value in values):
        return all(values)
    if all(isinstance(value, int) for value in values):
        return statistics.median_low(values)
    if all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values):
        return round(float(np.mean(values)), 6)
    told = [value for value in values if isinstance(value, str)]
    return told[0] if told else first if all(value is not None for value in values) else None


def _cell(cells: list[Mapping[str, Any]], draws: list[Draws | None], name: str, questions: int) -> dict[str, Any]:
    """Return the estimate of a cell over seeds."""
    values = [cell[name] for cell in cells]
    found: dict[str, Any] = {PER_SEED: values}
    if any(cell[key] is None for cell in cells for key in (name, "low", "high")):
        return found | dict.fromkeys((name, "low", "high"))
    if len(cells) == 1:
        return found | {key: cells[0][key] for key in (name, "low", "high")}
    ratio = name == "times"
    to, back = (np.log, np.exp) if ratio else (np.asarray, np.asarray)
    tiny = np.finfo(float).tiny if ratio else -np.inf
    low_S, high_S, values_S = (to(np.maximum([cell[key] for cell in cells], tiny)) for key in ("low", "high", name))
    least_S = (high_S - low_S) / (2 * _Z)
    known = [drawn for drawn in draws if drawn is not None]
    if len(known) == len(cells):
        size = min(len(drawn.values) for drawn in known)
        draws_SR = to(np.maximum(np.stack([drawn.values[:size] for drawn in known]), tiny))
    else:
        draws_SR = np.zeros((len(cells), 0))  # All of a seed's own interval is then taken for what seeds share.
    share = len(known) == len(cells) and all(drawn.share for drawn in known)
    over = spread(values_S, draws_SR, questions, least_S=None if share else least_S)
    low, high = _of_share(over, cells) if share else (over.low, over.high)
    numbers = {name: back(over.mean), "low": back(low), "high": back(high)}
    if not ratio:
        numbers |= {"se": math.hypot(over.questions, over.seeds), "se_seeds": over.seeds}
    return found | {key: round(float(value), 6) for key, value in numbers.items()}


def _of_share(over: Spread, cells: list[Mapping[str, Any]]) -> tuple[float, float]:
    """Return Wilson's interval of a share of which the mean over seeds and its standard error are known.

    It is that of as many questions as would have this standard error. Where a seed's own interval does not rest on its
    resamples, it is no narrower than those of the seeds are in the mean.
    """
    error = math.hypot(over.questions, over.seeds)
    t = (over.high - over.mean) / error if error**2 > _NOTHING else _Z
    low, high = _wilson(over.mean, error, t)
    for cell in cells:
        ends = _wilson(cell["mean"], cell.get("se") or 0.0, _Z)
        if cell["high"] - cell["low"] > 1.05 * (ends[1] - ends[0]):
            own = [float(np.mean([one[key] for one in cells])) for key in ("low", "high")]
            return min(low, own[0]), max(high, own[1])
    return low, high


def _wilson(mean: float, error: float, quantile: float) -> tuple[float, float]:
    """Return Wilson's interval of a share with a standard error; without any width where that is 0."""
    if error**2 <= _NOTHING or not 0 < mean < 1:
        return mean, mean
    z2 = (quantile * error) ** 2 / (mean * (1 - mean))
    centre = (mean + z2 / 2) / (1 + z2)
    half = math.sqrt(mean * (1 - mean) * z2 + z2**2 / 4) / (1 + z2)
    return max(0.0, centre - half), min(1.0, centre + half)
