"""The summary of a report on disk: `summary.json`, and beside its figures the draws of its estimates.

Nothing else reads or writes them. Summaries of before there was a version (0) are read too.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from etils import epath

from ttcjax.eval.report import catalogue, coding
from ttcjax.eval.report.section import VERSION, Summary
from ttcjax.eval.stats import draws as draws_lib
from ttcjax.eval.stats import seeds
from ttcjax.eval.stats.draws import Drawn, Draws
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import write_bytes

SUMMARY = "summary.json"
DRAWS = "draws.npz"
KEPT = 500
"""Resamples of an estimate that are kept, the first ones: a standard error by so many is off by 3%."""


def encode(summary: Summary) -> dict[str, Any]:
    """Return a summary as JSON's own types; draws stay with their estimates, see `draws.take`."""
    return {"version": summary.version, **coding.encode(summary)}


def decode(values: Mapping[str, Any], where: str = SUMMARY) -> Summary:
    """Return the summary that `encode` made these values of, or an earlier version did.

    Args:
        values: JSON's own types.
        where: What they are called in errors.

    Raises:
        UserError: They are of a later version, or of an earlier one that lacks what reports have today.
    """
    version = values.get("version", 0)
    if version > VERSION:
        raise UserError(f"{where} has version {version} of a report, this program knows up to {VERSION}: update it")
    try:
        tables = dict(values) if version else upgrade(values)
        types = {section.name: section.result for section in catalogue.SECTIONS}
        if unknown := [name for name in tables["sections"] if name not in types]:
            raise UserError(f"it has a section {unknown[0]!r} that is not known")
        # In the order of the report, whatever the file's.
        found = {
            name: coding.decode(kind, tables["sections"][name], name)
            for name, kind in types.items()
            if name in tables["sections"]
        }
        return coding.decode(Summary, {**tables, "sections": found}, "summary")
    except (UserError, KeyError, TypeError, AttributeError) as error:
        what = f"it has no {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{where} cannot be read ({what}): run `ttcjax report CONFIG --workdir WORKDIR` again"
        ) from error


def write(path: epath.PathLike, summary: Summary) -> None:
    """Write a summary, which has no draws."""
    write_bytes(path, (json.dumps(encode(summary), indent=2, allow_nan=False) + "\n").encode())


def read(path: epath.PathLike) -> Summary:
    """Return the summary in a file.

    Raises:
        UserError: See `decode`; or it is no JSON.
    """
    return decode(_json(epath.Path(path)), str(path))


def read_run(workdir: epath.Path) -> tuple[Summary, dict[str, Draws], int]:
    """Return the summary of a complete run, the draws of its estimates and how many questions were resampled.

    Raises:
        DamagedError: The report is not complete, or a file of it has other bytes than were written.
        UserError: See `decode`.
    """
    path = workdir / SUMMARY
    record = records.read_complete(workdir / "report")
    if record is None or records.faults(workdir / "report", record):
        raise records.damaged(path, "its report is not complete")
    values = _json(path)
    draws, questions = read_draws(workdir / "report" / DRAWS)
    if "version" not in values:  # The paths of its draws are those of that time.
        _attach(values, draws)
        values = upgrade(values)
        draws = draws_lib.take(values)
    return decode(values, str(path)), draws, questions


def write_draws(path: epath.PathLike, draws: Mapping[str, Draws], questions: int) -> None:
    """Write draws, of every estimate the first `KEPT`.

    Args:
        path: The file.
        draws: By the path of their cell.
        questions: How many were resampled.
    """
    kept = [drawn.values[:KEPT].astype(np.float32) for drawn in draws.values()]
    sink = io.BytesIO()
    np.savez(
        sink,
        paths=np.array(list(draws), np.str_),
        values=np.stack(kept) if kept else np.zeros((0, 0), np.float32),
        share=np.array([drawn.share for drawn in draws.values()], bool),
        questions=np.int64(questions),
    )
    write_bytes(path, sink.getvalue())


def read_draws(path: epath.PathLike) -> tuple[dict[str, Draws], int]:
    """Return the draws that were written into the report of a complete run, and how many questions were resampled.

    Raises:
        DamagedError: The file has other bytes than were written.
    """
    with np.load(io.BytesIO(records.read_own(path)), allow_pickle=False) as file:
        values, share = file["values"].astype(np.float64), file["share"]
        found = {str(name): Draws(values[i], bool(share[i])) for i, name in enumerate(file["paths"])}
        return found, int(file["questions"])


def _json(path: epath.Path) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text())
    except ValueError as error:
        raise records.damaged(path, "it is no JSON") from error
    if not isinstance(values, dict):
        raise records.damaged(path, "it is no table of JSON")
    return values


def _attach(values: dict[str, Any], draws: Mapping[str, Draws]) -> None:
    """Give the estimates of a summary of version 0 their draws back."""
    for path, cell in draws_lib.cells(values):
        if path in draws:
            name = next(name for name in (*seeds.VALUES, "difference") if name in cell)
            cell[name] = Drawn(cell[name], *draws[path])


_POLICY = (
    *("samples", "samples_of_difficulty", "pass_at_1", "pass_at_1_interval", "pass_at_1_histogram", "pass_at_k"),
    "unparsable",
)
_SAME = ("prm", "temperatures", "compute_optimal", "budget", "weak_verifiers", "compute", "over_optimisation", "orm")
"""Entries of version 0 that are sections now."""
_HEAD = ("name", "config_hash", "questions", "missing", "seconds", "compile_seconds", "peak_rss_bytes", "seeds")


def upgrade(old: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of version 0 in the layout of version 1; every number is the same.

    Raises:
        KeyError: Something is missing.
    """
    accuracy = {name: cells for name, cells in old["accuracy"].items() if all(key.isdigit() for key in cells)}
    levels = old["per_level"]
    sections: dict[str, Any] = {
        "accuracy": {
            "strategies": accuracy,
            "monte_carlo_error": old["monte_carlo_error"],
            "per_level": {
                level: {key: cell for key, cell in cells.items() if key != "greedy"} for level, cells in levels.items()
            },
        },
        "policy": {key: old[key] for key in _POLICY},
        "paired": {"comparisons": [_with_mean(row) for row in old["comparisons"]], **old["paired"]},
        "aggregation": {"accuracy": old["aggregation"]},
        "by_subject": {"subjects": old["by_subject"]},
        "greedy": {**old["greedy"], "per_level": {level: cells["greedy"] for level, cells in levels.items()}},
        **{key: old[key] for key in _SAME if key in old},
    }
    if old.get("luck"):
        sections["luck"] = {"share": old["luck"]}
    if "revision" in old:
        sections |= _revisions(old["revision"], {k: v for k, v in old["accuracy"].items() if k not in accuracy})
    if "exchange" in old:
        sections["exchange"] = _exchange(old["exchange"])
    claims = [{**claim, "measure": _measure(claim["measure"])} for claim in old.get("claims", ())]
    return {
        "version": VERSION,
        **{key: old[key] for key in _HEAD if key in old},
        "sections": sections,
        "claims": claims,
    }


def _with_mean(row: Mapping[str, Any]) -> dict[str, Any]:
    return {"mean" if key == "difference" else key: value for key, value in row.items()}


def _revisions(old: Mapping[str, Any], accuracy: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: value for key, value in old.items() if key not in ("compute_optimal", "families", "trajectories")}
    made = old["trajectories"]
    named = ("questions", "trajectories", "context", "distance")
    others = {key: value for key, value in made.items() if key not in named}
    trajectories = {**{key: made[key] for key in named}, "others": others}
    return {
        "revision": {**kept, "accuracy": accuracy, "trajectories": trajectories},
        "revision_by_difficulty": old["compute_optimal"],
        "revision_families": {"subjects": old["families"], "trained_answers": old["trained_answers"]},
    }


def _exchange(old: Mapping[str, Any]) -> dict[str, Any]:
    unknown = dict.fromkeys(("mean", "low", "high"))

    def told(groups: Mapping[str, Any]) -> dict[str, Any]:
        return {
            group: [{**row, "relative": row["relative"] or unknown} for row in rows] for group, rows in groups.items()
        }

    sources = {
        name: {**cells, "bars": told(cells["bars"]), "grid": told(cells["grid"])}
        for name, cells in old["sources"].items()
    }
    return {**old, "sources": sources}


def _measure(old: str) -> str:
    """Return where the number of a claim stands now."""
    if old == "comparisons":
        return "paired.comparisons"
    return old.replace("revision.compute_optimal.hierarchical", "revision_by_difficulty.hierarchical.chosen")
