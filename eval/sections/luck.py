"""Right answers by luck: which share of the right samples holds a false step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from rich.console import Console

from ttcjax.config import SweepConfig
from ttcjax.eval.records.bundle import Records
from ttcjax.eval.report.section import Section, Summary, Table
from ttcjax.eval.stats.intervals import Bootstrap, Estimate
from ttcjax.text.terminal import Shown


@dataclass(frozen=True)
class ByLuck:
    """Right samples with a false step.

    Attributes:
        share: Of the right samples, by subject, `all` first.
    """

    share: dict[str, Estimate]


def false_steps(settings: SweepConfig, samples: pa.Table) -> dict[str, Estimate]:
    """Return which share of the right samples holds a false step, of all and by subject.

    Args:
        settings: `bootstrap` is used.
        samples: Rows of the bank.

    Returns:
        Estimates by subject, `all` first, without those that have no right sample; nothing where the data set cannot
        tell true steps from false ones.
    """
    if samples["step_truth"].null_count == len(samples):
        return {}
    questions, place = np.unique(np.array(samples["question"].to_pylist()), return_inverse=True)
    right = samples["correct"].to_numpy(zero_copy_only=False)
    steps = samples["step_truth"].combine_chunks()
    row = np.repeat(np.arange(len(samples)), steps.value_lengths().fill_null(0).to_numpy())
    false = np.zeros(len(samples), bool)
    false[row[~steps.flatten().to_numpy(zero_copy_only=False)]] = True
    cases, events = (np.bincount(place, weights=w, minlength=len(questions)) for w in (right, right & false))
    subjects = np.full(len(questions), "", object)
    subjects[place] = samples["subject"].to_pylist()
    bootstrap = Bootstrap(len(questions), settings.bootstrap, settings.bootstrap_seed)
    found = {"all": bootstrap.rate(events, cases)}
    for subject in sorted(set(subjects)):
        inside = subjects == subject
        found[subject] = bootstrap.rate(events * inside, cases * inside)
    return {name: estimate for name, estimate in found.items() if estimate.known}


class Luck(Section[ByLuck]):
    """Right answers by luck, where the data set tells true steps from false ones."""

    name = "luck"
    result = ByLuck
    tables = (
        Table[ByLuck](
            "luck", "subject mean low high", lambda found, _: ((s, *cell.ends) for s, cell in found.share.items())
        ),
    )

    def wanted(self, records: Records) -> bool:
        return bool(records.of(self).share)

    def compute(self, records: Records) -> ByLuck:
        return ByLuck(false_steps(records.settings.sweep, records.base))

    def text(self, found: ByLuck, summary: Summary, console: Console) -> None:
        if (share := found.share.get("all")) is not None:
            text = f"right by luck: {100 * share.mean:.1f}% [{100 * share.low:.1f}, {100 * share.high:.1f}]"
            console.print(Shown(f"{text} of right samples hold a false step"), soft_wrap=True)


SECTION = Luck()
