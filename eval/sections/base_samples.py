"""The policy's own samples: how often right, and how hard that makes the questions."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.section import Section, Summary
from ttcjax.eval.stats.estimators import Samples, pass_at_k
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.text.terminal import Shown

_HISTOGRAM_BINS = 10


@dataclass(frozen=True)
class Sampled:
    """Base samples.

    Attributes:
        samples: Of each question.
        samples_of_difficulty: Of them, those that tell difficulty and judge nothing.
        pass_at_1: Share of right ones.
        pass_at_1_interval: The same with its interval.
        pass_at_1_histogram: Questions by their share of right samples, in ten classes from 0 to 1.
        pass_at_k: Chance that one of N is right, by N.
        unparsable: Share without an answer.
    """

    samples: int
    samples_of_difficulty: int
    pass_at_1: float
    pass_at_1_interval: Estimate
    pass_at_1_histogram: list[int]
    pass_at_k: dict[int, Estimate]
    unparsable: float


def describe(settings: SweepConfig, samples: Samples) -> Sampled:
    """Describe the base samples.

    Args:
        settings: `samples`, `judged`, `budgets` and `bootstrap` are used.
        samples: Of the bank, those that judge.
    """
    bootstrap = Bootstrap(len(samples.questions), settings.bootstrap, settings.bootstrap_seed)
    pass_at_1 = samples.pass_at_1()
    classes = np.minimum((pass_at_1 * _HISTOGRAM_BINS).astype(int), _HISTOGRAM_BINS - 1)
    return Sampled(
        samples=settings.samples,
        samples_of_difficulty=settings.samples - settings.judged,
        pass_at_1=float(pass_at_1.mean()),
        pass_at_1_interval=bootstrap(pass_at_1),
        pass_at_1_histogram=np.bincount(classes, minlength=_HISTOGRAM_BINS).tolist(),
        pass_at_k={n: bootstrap(pass_at_k(samples.correct[:, 0], n)) for n in settings.budgets},
        unparsable=float(1 - (samples.groups >= 0).mean()),
    )


class Policy(Section[Sampled]):
    """The policy's own samples."""

    name = "policy"
    result = Sampled

    def compute(self, records: Records) -> Sampled:
        return describe(records.settings.sweep, records.measured.samples)

    def text(self, found: Sampled, summary: Summary, console: Console) -> None:
        shown = f"\npolicy: pass@1 {found.pass_at_1:.3f}, {100 * found.unparsable:.1f}% of its answers unparsable"
        console.print(Shown(shown), soft_wrap=True)

    def measures(self, found: Sampled) -> Iterable[tuple[str, str]]:
        yield "answers of the policy that cannot be read", f"{100 * found.unparsable:.1f}%"


SECTION = Policy()
