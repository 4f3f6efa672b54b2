"""Scores of verifiers, read by the verifier's name: of whichever one judged the samples of a bank.

The bank's own rows hold the scores of the verifier that it was made with (`PRM`) and what the policy itself gives
(`LIKELIHOOD`). Those of all others are rows of their own, one a sample and verifier, so that any number judge one bank.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from etils import epath

from ttcjax.config import Aggregation, ExperimentConfig
from ttcjax.eval.records import sample_rows
from ttcjax.eval.stats.estimators import LIKELIHOOD, likelihoods
from ttcjax.runtime import parquet
from ttcjax.runtime.errors import UserError

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


@dataclass(frozen=True)
class BankVerifier:
    """A verifier that judges the bank of an experiment."""

    name: str
    aggregate: Aggregation
    """How its scores of steps become one of a solution."""


def of_bank(config: ExperimentConfig) -> tuple[BankVerifier, ...]:
    """Return the verifiers that judge the bank of an experiment, the one it is made with first."""
    return (
        BankVerifier(PRM, config.prm.aggregate),
        *[BankVerifier(BASE_ORM, "last")] * config.orm.base,
        *(BankVerifier(own.name, own.aggregate) for own in config.sweep.own_verifiers),
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
    return [
        {name: sample[name] for name in KEY} | {"verifier": verifier, "step_scores": list(scores)}
        for sample, scores in zip(samples, step_scores, strict=True)
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
    found = dict(zip(_keys(own), own["step_scores"].to_pylist(), strict=True))
    cure = f"move {folder} away and run again"
    if twice := own.num_rows - len(found):
        raise UserError(f"{twice} scores of {verifier} stand twice: {cure}")
    keys = _keys(samples)
    if missing := sum(key not in found for key in keys):
        raise UserError(f"{verifier} has no scores of {missing} of {len(keys)} samples: {cure}")
    return _with_scores(samples, pa.array([found[key] for key in keys], SCHEMA.field("step_scores").type))


def _with_scores(samples: pa.Table, scores: pa.Array) -> pa.Table:
    return samples.set_column(samples.schema.get_field_index("step_scores"), "step_scores", scores)


def _keys(table: pa.Table) -> list[tuple[Any, ...]]:
    return list(zip(*(table[name].to_pylist() for name in KEY), strict=True))
