"""Scores of verifiers, read by the verifier's name: of whichever one judged the samples of a bank.

The bank's own rows hold the scores of the verifier that it was made with (`PRM`) and what the policy itself gives
(`LIKELIHOOD`). Those of all others are rows of their own, one a sample and verifier, so that any number judge one bank.
An answer of a chain of revisions holds such rows, one a verifier that read it; those who read it later have written
rows of their own.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from ttcjax.config import Aggregation, ExperimentConfig
from ttcjax.eval.records import sample_rows
from ttcjax.eval.stats.estimators import LIKELIHOOD, likelihoods, ragged
from ttcjax.runtime import parquet
from ttcjax.runtime.errors import UserError
from ttcjax.verify.aggregate import aggregate

PRM, BASE_ORM = "prm", "base_orm"
"""Names of verifiers that an experiment trains, those of the stages that do."""

KEY = ("question", "strategy", "n", "seed", "temperature", "sample")
"""Columns of `sample_rows.SCHEMA` that tell a sample from all others."""

SCHEMA = pa.schema(
    [
        *(sample_rows.SCHEMA.field(name) for name in KEY),
        pa.field("verifier", pa.string(), nullable=False, metadata={"about": "its name, such as `base_orm`"}),
        sample_rows.SCHEMA.field("step_scores"),
    ]
)
"""Columns of the rows; each verifier judges a sample once."""


ANSWER_KEY = ("question", "strategy", "seed", "chain", "place")
"""Columns that tell an answer of a chain of revisions from all others."""

ANSWER_SCHEMA = pa.schema(
    [
        *(SCHEMA.field(name) for name in ("question", "strategy", "seed")),
        pa.field("chain", pa.int32(), nullable=False),
        pa.field("place", pa.int32(), nullable=False, metadata={"about": "of the answer in its chain, from 0"}),
        *(SCHEMA.field(name) for name in ("verifier", "step_scores")),
    ]
)
"""Columns of the rows of answers that were judged once the chains were there."""

SCORES = pa.field(
    "scores",
    pa.list_(
        pa.struct([SCHEMA.field("verifier").remove_metadata(), SCHEMA.field("step_scores").remove_metadata()]),
    ),
    nullable=False,
    metadata={"about": "of each verifier that read it: its name, and one a step, in [0, 1]"},
)
"""Column of the rows of chains."""
SCORES_OF = ("verifier", "step_scores")
"""What each entry holds."""


@dataclass(frozen=True)
class BankVerifier:
    """A verifier that judges the bank of an experiment."""

    name: str
    aggregate: Aggregation
    """How its scores of steps become one of a solution."""
    named: bool = False
    """Whether it is one of `sweep.verifiers`."""


def of_bank(config: ExperimentConfig) -> tuple[BankVerifier, ...]:
    """Return the verifiers that judge the bank of an experiment, the one it is made with first."""
    return (
        BankVerifier(PRM, config.prm.aggregate),
        *[BankVerifier(BASE_ORM, "last")] * config.orm.base,
        *(BankVerifier(own.name, own.aggregate, named=True) for own in config.sweep.own_verifiers),
    )


def rows(
    samples: Iterable[Mapping[str, Any]], verifier: str, step_scores: Iterable[Sequence[float]]
) -> list[dict[str, Any]]:
    """Return rows of `SCHEMA`.

    Args:
        samples: Rows that hold `KEY`.
        verifier: Its name.
        step_scores: Of each sample.
    """
    return _rows(samples, KEY, verifier, step_scores)


def answer_rows(
    answers: Iterable[Mapping[str, Any]], verifier: str, step_scores: Iterable[Sequence[float]]
) -> list[dict[str, Any]]:
    """Return rows of `ANSWER_SCHEMA`, as `rows` does of samples; the answers hold `ANSWER_KEY`."""
    return _rows(answers, ANSWER_KEY, verifier, step_scores)


def _rows(
    judged: Iterable[Mapping[str, Any]], key: Sequence[str], verifier: str, step_scores: Iterable[Sequence[float]]
) -> list[dict[str, Any]]:
    return [
        {name: one[name] for name in key} | {"verifier": verifier, "step_scores": list(scores)}
        for one, scores in zip(judged, step_scores, strict=True)
    ]


def read_folder(folder: epath.PathLike) -> pa.Table:
    """Read the rows of a complete stage; see `ttcjax.runtime.parquet.read_folder`."""
    return parquet.read_folder(folder, SCHEMA)


def judged_by(samples: pa.Table, verifier: str, folder: epath.PathLike) -> pa.Table:
    """Return samples with the scores of a verifier as their `step_scores`.

    Args:
        samples: Rows of the bank: with `KEY` and `step_scores`, and for `LIKELIHOOD` with `logprob` and `tokens`.
        verifier: `PRM`, `LIKELIHOOD`, whose one score is a solution's, or the name of another one.
        folder: Of the stage with the rows of others; read for no other.

    Raises:
        UserError: The verifier has not judged a sample, or has judged one twice, or the stage is not complete.
    """
    if verifier == PRM:
        return samples
    if verifier == LIKELIHOOD:
        return _with_scores(samples, pa.array(likelihoods(samples)[:, None].tolist(), pa.list_(pa.float64())))
    own = read_folder(folder).filter(pc.field("verifier") == verifier)
    found = dict(zip(_keys(own, KEY), own["step_scores"].to_pylist(), strict=True))
    cure = f"move {folder} away and run again"
    if twice := own.num_rows - len(found):
        raise UserError(f"{twice} scores of {verifier} stand twice: {cure}")
    keys = _keys(samples, KEY)
    if missing := sum(key not in found for key in keys):
        raise UserError(f"{verifier} has no scores of {missing} of {len(keys)} samples: {cure}")
    return _with_scores(samples, pa.array([found[key] for key in keys], SCHEMA.field("step_scores").type))


def nested(step_scores: Mapping[str, Sequence[float]]) -> list[dict[str, Any]]:
    """Return a value of `SCORES`: the step scores of one answer by verifier."""
    return [{"verifier": name, "step_scores": list(scores)} for name, scores in step_scores.items()]


def with_further(answers: pa.Table, folder: epath.PathLike) -> pa.Table:
    """Return answers with the scores of those who judged them later among their `SCORES`.

    Args:
        answers: Rows of chains.
        folder: Of the complete stage with rows of `ANSWER_SCHEMA`.

    Raises:
        UserError: The stage is not complete.
    """
    further = parquet.read_folder(folder, ANSWER_SCHEMA)
    found: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    judged = zip(_keys(further, ANSWER_KEY), *(further[name].to_pylist() for name in SCORES_OF), strict=True)
    for key, verifier, scores in judged:
        found.setdefault(key, {})[verifier] = scores
    keys = _keys(answers, ANSWER_KEY)
    lists = [
        [*own, *nested(found.get(key, {}))] for key, own in zip(keys, answers[SCORES.name].to_pylist(), strict=True)
    ]
    return answers.set_column(answers.schema.get_field_index(SCORES.name), SCORES, pa.array(lists, SCORES.type))


def of_answers(table: pa.Table, aggregates: Mapping[str, Aggregation]) -> dict[str, np.ndarray]:
    """Return the scores of answers `[rows]` by verifier; NaN where it has not read an answer.

    Args:
        table: Rows with `SCORES`.
        aggregates: How the scores of steps become one of an answer, by verifier; of others the last is. Those named
            here come first, in this order.
    """
    lists = table[SCORES.name].combine_chunks()
    rows, judged = np.repeat(np.arange(len(lists)), lists.value_lengths().to_numpy()), lists.flatten()
    names = np.array(judged.field("verifier").to_pylist(), object)
    steps = judged.field("step_scores")
    found = {}
    order = list(aggregates)
    for name in sorted(set(names), key=lambda name: (order.index(name) if name in order else len(order), name)):
        inside = names == name
        how = aggregates.get(name, "last")
        scores = aggregate(ragged(steps.filter(pa.array(inside))), how)
        found[name] = np.full(table.num_rows, np.nan)
        # To the precision that rows have, whichever way steps are put together.
        found[name][rows[inside]] = scores.astype(np.float32)
    return found


def _with_scores(samples: pa.Table, scores: pa.Array) -> pa.Table:
    return samples.set_column(samples.schema.get_field_index("step_scores"), "step_scores", scores)


def _keys(table: pa.Table, key: Sequence[str]) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in key), strict=True))
