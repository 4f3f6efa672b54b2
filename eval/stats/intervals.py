"""Intervals of what is averaged over questions: shares, differences, ratios, and strategies that were chosen."""

from __future__ import annotations

import copy
import dataclasses
import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any, TypeVar

import numpy as np

from ttcjax.eval.stats.draws import Drawn
from ttcjax.runtime.errors import UserError

_FEW = 5
"""Least questions that a share, or what it lacks to 1, needs for its spread to be told."""

_NO_SPREAD = 1e-9
"""A standard error below it comes from rounding."""


_E = TypeVar("_E", bound="Estimate")


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval; all of them NaN where there is nothing to estimate from.

    Attributes:
        mean: Of the questions; with its draws where it comes from resamples, see `draws.Drawn`.
        low: Lower end of the interval.
        high: Upper end.
        se: Standard error: the standard deviation of the mean over resamples of the questions.
        se_seeds: Of a mean over seeds, the part of `se` that comes from training.
        per_seed: Of a mean over seeds, the estimate of each; `None` of a seed that has none.
    """

    mean: float
    low: float
    high: float
    se: float = math.nan
    se_seeds: float | None = None
    per_seed: tuple[float | None, ...] = ()

    @property
    def spread(self) -> bool:
        """Whether resamples differ at all, but for rounding."""
        return self.se > _NO_SPREAD

    @property
    def known(self) -> bool:
        """Whether there is anything to estimate from."""
        return math.isfinite(self.mean)

    @property
    def ends(self) -> tuple[float, float, float]:
        """The mean and both ends of its interval."""
        return self.mean, self.low, self.high

    def as_a(self, kind: type[_E], **more: Any) -> _E:
        """Return the same numbers as another kind of estimate, which says more of what they are."""
        return kind(**{field.name: getattr(self, field.name) for field in dataclasses.fields(Estimate)}, **more)


UNKNOWN = Estimate(math.nan, math.nan, math.nan)


class Bootstrap:
    """Intervals from resamples of the questions (Efron 1979).

    All estimates of one instance use the same resamples, so that what is computed in each of them can be compared:
    arrays `_R` hold a value of the questions as they are first, and then one of each resample.

    * A share, a mean of values from 0 to 1, has Wilson's interval for as many questions as a right-or-wrong share of
      that standard error would have: percentiles have no width at 0 and 1 and cover too rarely near them.
    * A difference has the percentiles of the resamples.
    * Where fewer than five questions make up what is averaged, resamples cannot tell its spread: each question then
      counts as right or wrong whole (Wilson's interval; for a difference of both sides, Newcombe 1998).

    Attributes:
        counts: How often each question is drawn, `[1 + R, Q]`; once each in the first row.
    """

    def __init__(self, questions: int, resamples: int, seed: int, level: float = 0.95):
        """Draw the resamples.

        Args:
            questions: Number of questions Q.
            resamples: Number of resamples R behind each interval.
            seed: Equal seeds give equal intervals.
            level: Coverage of the interval.

        Raises:
            UserError: There is no question.
        """
        if questions < 1:
            raise UserError("there is no question to estimate from: check that the bank is not empty")
        rng = np.random.default_rng(seed)
        drawn = rng.multinomial(questions, np.full(questions, 1 / questions), size=resamples)
        # How often each question is drawn is all that a mean needs.
        self.counts = np.concatenate([np.ones((1, questions)), drawn])
        self._quantiles = ((1 - level) / 2, (1 + level) / 2)
        self._z = NormalDist().inv_cdf(self._quantiles[1])

    def means(self, values_Q: np.ndarray, inside_Q: np.ndarray | None = None) -> np.ndarray:
        """Return the mean of per-question values in each resample, `[1 + R]`.

        Args:
            values_Q: Of all questions.
            inside_Q: Which of them are averaged, boolean; all by default. Not a number where none of them is drawn.
        """
        counts = self.counts if inside_Q is None else self.counts[:, inside_Q]
        with np.errstate(invalid="ignore"):
            return counts @ (values_Q if inside_Q is None else values_Q[inside_Q]) / counts.sum(axis=1)

    def within(self, inside_Q: np.ndarray) -> Bootstrap:
        """Return the same resamples of some of the questions alone, as many of them as each happens to draw.

        Args:
            inside_Q: Which questions, boolean.
        """
        found = copy.copy(self)
        found.counts = self.counts[:, inside_Q]
        return found

    def __call__(
        self, values_Q: np.ndarray, inside_Q: np.ndarray | None = None, *, means_R: np.ndarray | None = None
    ) -> Estimate:
        """Return the mean of a share, such as an accuracy, and its interval.

        Args:
            values_Q: Each question's share, 0 to 1.
            inside_Q: Which questions are averaged; all by default.
            means_R: The mean in each resample where more changes from one to the other than the weights of questions,
                such as a strategy that is chosen anew.
        """
        values = values_Q if inside_Q is None else values_Q[inside_Q]
        means_R = self.means(values_Q, inside_Q) if means_R is None else means_R
        mean, se = _split(means_R)
        low, high = self._wilson(mean, se, values)
        return Estimate(Drawn(mean, means_R[1:], True), low, high, se)

    def difference(
        self, values_Q: np.ndarray, inside_Q: np.ndarray | None = None, *, means_R: np.ndarray | None = None
    ) -> Estimate:
        """Return the mean of paired differences of two shares and its interval.

        Args:
            values_Q: Each question's difference, -1 to 1.
            inside_Q: As for a share.
            means_R: As for a share.
        """
        values = np.asarray(values_Q if inside_Q is None else values_Q[inside_Q], np.float64)
        means_R = self.means(np.asarray(values_Q, np.float64), inside_Q) if means_R is None else means_R
        mean, se = _split(means_R)
        low, high = np.nanquantile(means_R[1:], self._quantiles)
        if _makers(np.abs(values)) < _FEW:
            up, down = np.maximum(values, 0.0), np.maximum(-values, 0.0)
            (up_low, up_high), (down_low, down_high) = (
                self._wilson(float(part.mean()), 0.0, part) for part in (up, down)
            )
            p, q = up.mean(), down.mean()
            low = min(low, mean - np.hypot(p - up_low, down_high - q))
            high = max(high, mean + np.hypot(up_high - p, q - down_low))
        return Estimate(Drawn(mean, means_R[1:]), float(low), float(high), se)

    def paired(self, a_Q: np.ndarray, b_Q: np.ndarray) -> Estimate:
        """Return the mean of a - b over the same questions and its interval."""
        return self.difference(np.asarray(a_Q, np.float64) - b_Q)

    def quantiles(self, found_R: np.ndarray) -> tuple[float, float]:
        """Return the ends of the interval of what was computed in each resample; infinite values are welcome.

        Args:
            found_R: The value of the questions as they are, which is not looked at, and those of the resamples.
        """
        low, high = np.nanquantile(found_R[1:], self._quantiles, method="nearest")
        return float(low), float(high)

    def rate(self, events_Q: np.ndarray, cases_Q: np.ndarray) -> Estimate:
        """Return the share of events among cases, which several questions each have some of; unknown without a case.

        Args:
            events_Q: Of each question, at most its cases.
            cases_Q: Not negative.
        """
        if not cases_Q.sum():
            return UNKNOWN
        found_R = self.ratios(events_Q, cases_Q)
        mean, se = _split(found_R)
        any_Q = cases_Q > 0
        low, high = self._wilson(mean, se, events_Q[any_Q] / cases_Q[any_Q])
        return Estimate(Drawn(mean, found_R[1:], True), low, high, se)

    def ratio(self, numerator_Q: np.ndarray, denominator_Q: np.ndarray) -> Estimate:
        """Return the ratio of two sums over questions and its interval; unknown where the second is 0.

        Resamples without anything to divide by say nothing and are left out.
        """
        if not denominator_Q.sum():
            return UNKNOWN
        return self.of(self.ratios(numerator_Q, denominator_Q))

    def of(self, found_R: np.ndarray) -> Estimate:
        """Return any number with the percentiles of the resamples.

        Args:
            found_R: The number of the questions as they are, and of each resample; not a number where it has none.
        """
        mean, se = _split(found_R)
        low, high = np.nanquantile(found_R[1:], self._quantiles)
        return Estimate(Drawn(mean, found_R[1:]), float(low), float(high), se)

    def ratios(self, numerator_Q: np.ndarray, denominator_Q: np.ndarray) -> np.ndarray:
        """Return the ratio of two sums over questions in each resample, `[1 + R]`; not a number without anything to
        divide by."""
        bottom_R = self.counts @ denominator_Q
        return np.divide(self.counts @ numerator_Q, bottom_R, out=np.full(len(bottom_R), np.nan), where=bottom_R > 0)

    def _wilson(self, mean: float, se: float, values: np.ndarray) -> tuple[float, float]:
        """Return Wilson's interval of a share (Wilson 1927).

        Args:
            mean: The share.
            se: Its standard error.
            values: Those that are averaged.
        """
        n = float(len(values))
        if se > _NO_SPREAD and min(_makers(values), _makers(1 - values)) >= _FEW:
            n = mean * (1 - mean) / se**2
        z2 = self._z**2 / n
        centre = (mean + z2 / 2) / (1 + z2)
        half = np.sqrt(max(mean * (1 - mean), 0.0) * z2 + z2**2 / 4) / (1 + z2)
        return max(0.0, float(centre - half)), min(1.0, float(centre + half))


def _makers(values: np.ndarray) -> float:
    """Return how many values make up their sum: all of them where they are equal, one where the others are 0."""
    squares = float((values**2).sum())
    return float(values.sum()) ** 2 / squares if squares > 1e-12 else 0.0


def _split(means_R: np.ndarray) -> tuple[float, float]:
    """Return the value of the questions as they are and the standard deviation over resamples."""
    return float(means_R[0]), float(np.nanstd(means_R[1:])) if len(means_R) > 1 else 0.0
