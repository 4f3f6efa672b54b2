"""A study: the pipeline once a seed, each in a folder of its own, and one report over all of them.

Every seed is an ordinary run under `<workdir>/seed-<number>`, of the same config but for its seeds (`seeded`), and all
of them ask the same questions, so that seeds are compared question by question. Processes that share a study are
*parts*, as those of a sweep are: they share the seeds first, and where there are more parts than seeds, the shards of
a seed's evaluation.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import re
import time
from typing import Any

from etils import epath

from ttcjax import config as config_lib
from ttcjax.config import ExperimentConfig
from ttcjax.data.sets import data_set
from ttcjax.pipeline import dry_run
from ttcjax.pipeline import run as pipeline
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import faults, locks, records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_remote, resolve_workdir
from ttcjax.runtime.shards import WHOLE, Part

logger = logging.getLogger(__name__)

FIXED = frozenset({"data.seed", "sweep.bootstrap_seed"})
"""Seeds that a study does not change: all are asked the same questions, and resample them alike, to be compared."""
STRIDE = 2**16
"""Between the seeds of two runs of a study: more than a run counts from any of its own (`require_seed`), so
that no two share a stream."""

_FOLDER = re.compile(r"seed-(0|[1-9][0-9]*)")


def seeded(config: ExperimentConfig, number: int) -> ExperimentConfig:
    """Return the config of one seed of a study.

    Every setting called `seed`, wherever it stands, is `number * STRIDE` more than in the config, but for `FIXED`: that
    is every seed of training, sampling, searching and resampling. Number 0 is the config itself.

    Args:
        config: The experiment.
        number: Of the seed, from 0.

    Raises:
        ConfigError: A seed would be larger than seeds may be.
    """
    return _moved(config, number * STRIDE, "")


def _moved(table: Any, by: int, path: str) -> Any:
    changed = {}
    for field in dataclasses.fields(table):
        value, name = getattr(table, field.name), f"{path}{field.name}"
        if dataclasses.is_dataclass(value):
            changed[field.name] = _moved(value, by, f"{name}.")
        elif field.name == "seed" and name not in FIXED:
            changed[field.name] = value + by
    return dataclasses.replace(table, **changed)


@dataclasses.dataclass(frozen=True)
class Run:
    """One seed of a study."""

    number: int
    seeds: int
    """Of the study."""
    config: ExperimentConfig
    """With its own seeds and workdir."""
    workdir: epath.Path

    def __str__(self) -> str:
        return f"seed {self.number} ({self.number + 1} of {self.seeds})"

    @property
    def stages(self) -> list[Stage]:
        return pipeline.wanted_stages(self.config)

    def left(self) -> list[Stage]:
        """Return the stages that are not complete."""
        return [stage for stage in self.stages if pipeline.unfit(stage, self.config, self.workdir)]


@faults.explained()
def study(
    config: ExperimentConfig, seeds: int, part: Part = WHOLE, *, command: str = "CONFIG --seeds N"
) -> dict[str, Any]:
    """Run what is missing of a study, and return its report.

    Args:
        config: The experiment; the runs lie in `seed-0`, `seed-1`, ... under its workdir.
        seeds: How many.
        part: The share of this process, where several share the study.
        command: Config and flags as the user names them, for messages.

    Returns:
        The content of `study.json`; nothing where other parts are still at work on a seed, or have been stopped.

    Raises:
        UserError: The number of seeds is none, runs were asked other questions than the first one, or another process
            holds the workdir.
    """
    root, runs = _prepared(config, seeds)
    for line in pipeline.device_shares(config, runs[0].stages).values():
        logger.info("%s", line)
    if part == WHOLE:
        with locks.alone(root):
            for run in runs:
                _run_alone(run, runs)
            return _report(root, runs)
    if is_remote(root) and part.count > seeds:
        raise UserError(f"{root} has no locks, so that a seed is one part's alone: at most {seeds} parts, not {part}")
    mark = config_lib.config_hash(*[run.config for run in runs])
    with locks.shared(root, str(part), f"a study of {seeds} seeds in {part.count} parts with settings {mark}"):
        mine = [(run, share) for run in runs if (share := share_of(run.number, seeds, part)) is not None]
        for run, share in mine:
            _run_share(run, share, runs, command)
        for run, share in mine:  # Once more: a stage may have waited for one that another part has completed since.
            if share != WHOLE and run.left():
                _run_share(run, share, runs, command)
        if is_remote(root):  # Nothing there keeps two parts from writing it at once.
            return {}
        with locks.gate(root):
            return {} if waits_for(config, seeds) else _report(root, runs)


def share_of(number: int, seeds: int, part: Part) -> Part | None:
    """Return which part of a seed's evaluation a part of the study makes; `None` where it is another's.

    Parts take the seeds in turn, and where fewer seeds than parts are left, these take the parts in turn. With 3 seeds,
    2 parts make one seed each and half of the third; of 7 parts, three share the first seed, two each of the others.

    Args:
        number: Of the seed, from 0.
        seeds: How many there are.
        part: Of the study.
    """
    shared = seeds % part.count
    if number < seeds - shared:
        return WHOLE if number % part.count == part.index - 1 else None
    place = number - (seeds - shared)
    team = list(range(place + 1, part.count + 1, shared))
    return Part(team.index(part.index) + 1, len(team)) if part.index in team else None


def waits_for(config: ExperimentConfig, seeds: int) -> list[str]:
    """Return for each seed that is not complete what is missing of it, in a few words."""
    _, runs = _prepared(config, seeds)
    return [f"seed {run.number} ({', '.join(s.name for s in left)})" for run in runs if (left := run.left())]


def plan(
    config: ExperimentConfig, seeds: int, part: Part = WHOLE
) -> list[tuple[int, epath.Path, list[dry_run.Planned]]]:
    """Return for each seed that a part has to do with its number, its workdir and what would be done of each stage.

    Raises:
        UserError: What `study` refuses before anything runs.
    """
    _, runs = _prepared(config, seeds)
    mine = [run for run in runs if share_of(run.number, seeds, part) is not None]
    return [(run.number, run.workdir, dry_run.plan(run.config)) for run in mine]


def folders(workdir: epath.PathLike) -> dict[int, epath.Path]:
    """Return the folders of the seeds of a study, by number; none where a workdir is not a study's."""
    workdir = resolve_workdir(workdir, "WORKDIR")
    if not workdir.is_dir():
        return {}
    found = {int(match[1]): path for path in workdir.iterdir() if (match := _FOLDER.fullmatch(path.name))}
    return dict(sorted(found.items()))


def state(workdir: epath.PathLike) -> str:
    """Return how the report over all seeds stands: `complete`, `missing`, or `damaged` with what is wrong."""
    workdir = resolve_workdir(workdir, "WORKDIR")
    record = records.read_complete(workdir / "report")
    if record is None:
        return "missing"
    wrong = records.faults(workdir / "report", record)
    return "damaged: {} {}".format(*next(iter(wrong.items()))) if wrong else f"complete over {record['seeds']} seeds"


def _prepared(config: ExperimentConfig, seeds: int) -> tuple[epath.Path, list[Run]]:
    if seeds < 1:
        raise UserError(f"--seeds must be 1 or more, not {seeds}")
    root = resolve_workdir(config.workdir)
    runs = []
    for number in range(seeds):
        own = dataclasses.replace(seeded(config, number), workdir=os.fspath(root / f"seed-{number}"))
        runs.append(Run(number, seeds, *pipeline.prepared(own)))
    return root, runs


def _run_alone(run: Run, runs: list[Run]) -> None:
    """Run every stage of a seed that is not complete."""
    with locks.alone(run.workdir):
        _run_stages(run, run.stages, runs)


def _run_share(run: Run, share: Part, runs: list[Run], command: str) -> None:
    """Run one part's share of a seed: all of it, or after its models are trained, the part's shards of its evaluation.

    The first of the parts that share a seed trains its models, and the others wait for that; if its process ends on
    the way, the next one goes on.
    """
    from ttcjax.pipeline import sweep  # imports jax

    if share == WHOLE:
        return _run_alone(run, runs)
    models = [stage for stage in run.stages if stage.name not in (*sweep.NAMES, "report")]
    if any(stage in run.left() for stage in models):
        logger.info("study: %s is trained by one of the %d parts that share it", run, share.count)
        run.workdir.mkdir(parents=True, exist_ok=True)
        with locks.gate(run.workdir, "training"):
            if any(stage in run.left() for stage in models):
                with locks.alone(run.workdir):
                    _run_stages(run, models, runs)
    logger.info("study: %s, part %s of its evaluation", run, share)
    sweep.run_part(run.config, share, command=command)
    return None


def _run_stages(run: Run, stages: list[Stage], runs: list[Run]) -> None:
    for stage in stages:
        if pipeline.unfit(stage, run.config, run.workdir):
            logger.info("study: %s, stage %d of %d: %s", run, run.stages.index(stage) + 1, len(run.stages), stage.name)
        pipeline.run_stage(stage, run.config, run.workdir)
        if stage.name == "data":
            _require_same_questions(runs)


def _require_same_questions(runs: list[Run]) -> None:
    """Compare what every seed that has its questions was asked: nothing of it depends on a study's seeds.

    Raises:
        UserError: Two have other questions or another tokenizer.
    """
    found = {run.number: record for run in runs if (record := records.read_complete(run.workdir / "data")) is not None}
    # The manifest has a hash of what these say.
    unlike = tuple(f"{name}/" for name in data_set(runs[0].config.data).unlike)
    contents = {
        number: {name: content for name, content in records.hashes(record).items() if not name.startswith(unlike)}
        for number, record in found.items()
    }
    first, *others = contents
    for number in others:
        names = sorted({name for name, _ in contents[first].items() ^ contents[number].items()})
        if names:
            raise UserError(
                f"seeds {first} and {number} have other questions ({', '.join(names)} differ), and are compared on "
                f"the same ones: move {runs[number].workdir} away and run the same command again, on the machine that "
                f"made seed {first}"
            )


def _report(root: epath.Path, runs: list[Run]) -> dict[str, Any]:
    """Write the report over all seeds, unless it is there for what they have found, and return it."""
    from ttcjax.eval.report import study_report  # imports matplotlib

    found = {run.number: records.read_complete(run.workdir / "report") for run in runs}
    made_of = {number: records.hashes(record) for number, record in found.items() if record is not None}
    fingerprint = config_lib.config_hash([study_report.VERSION, {str(n): hashes for n, hashes in made_of.items()}])
    record = records.read_complete(root / "report")
    if record is not None and record["fingerprint"] == fingerprint and not records.faults(root / "report", record):
        logger.info("study: the report over %d seeds is complete", len(runs))
        return json.loads((root / study_report.SUMMARY).read_text())
    logger.info("study: the report over %d seeds", len(runs))
    began = time.time()
    summary = study_report.run(runs[0].config, {run.number: run.workdir for run in runs}, root)
    files = records.identities(root / "report", summary.pop("files"))
    made = {"complete": True, "fingerprint": fingerprint, "seeds": len(runs), "files": files}
    records.write(root / "report", {**made, "attempts": 1, "started": began, "seconds": time.time() - began})
    return summary
