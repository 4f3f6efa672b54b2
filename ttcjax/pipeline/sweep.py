"""An evaluation as one job: what it will take, and its run in one process or in several, on one host or many.

The stages are those of `ttcjax.pipeline.run`, and so are their folders. Processes that share a workdir are *parts*:
they hold the workdir's lock together, each works on its own shards of a stage, and the one that finds all shards of a
stage whole completes it. Nothing passes between them but files.
"""

from __future__ import annotations

import json
import logging
from typing import Any

from etils import epath

from ttcjax import config as config_lib
from ttcjax.config import ExperimentConfig
from ttcjax.pipeline import plan as plans
from ttcjax.pipeline import run as pipeline
from ttcjax.pipeline import stages as stages_lib
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import faults, locks, shards, stop
from ttcjax.runtime import records as records_lib
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_remote, is_there
from ttcjax.runtime.progress import duration
from ttcjax.runtime.shards import WHOLE, Part, Shard
from ttcjax.runtime.stage import Inputs

logger = logging.getLogger(__name__)

NAMES = ("tune", "bank", "rescore", "search", "chains", "rescore_chains", "greedy")
"""The stages of an evaluation that sample or score, in order; the report follows."""


def plan(config: ExperimentConfig, part: Part = WHOLE, *, command: str = "CONFIG") -> plans.Plan:
    """Return what a sweep takes and what of it is left; nothing is run or written.

    Args:
        config: The experiment.
        part: Whose shards are planned.
        command: The config as the user names it, for messages that say what to run first.

    Raises:
        UserError: A model is not trained yet.
    """
    config, workdir = pipeline.prepared(config)
    _require_models(config, workdir, command)
    return _plan(config, workdir, part)


def _plan(config: ExperimentConfig, workdir: epath.Path, part: Part) -> plans.Plan:
    cells = [
        plans.Planned(stage, _inputs(stage, config, workdir), _folder(stage, config, workdir))
        for stage in _stages(config)
    ]
    return plans.make(config, workdir, cells, part)


def probe(found: plans.Plan, command: str) -> str:
    """Return the command that runs one shard of every stage that is not complete, after which its time is known."""
    return f"ttcjax sweep {command} --part 1/{found.most_shards}"


@faults.explained()
def run(config: ExperimentConfig, *, command: str = "CONFIG") -> dict[str, Any]:
    """Run what is missing of an evaluation in this process, and return each stage's record, the report's last.

    Args:
        config: The experiment.
        command: The config as the user names it, for messages that say what to run first.

    Raises:
        UserError: A model is not trained yet, or another process holds the workdir.
    """
    config, workdir = pipeline.prepared(config)
    _require_models(config, workdir, command)
    with locks.alone(workdir):
        records = {}
        for stage in _stages(config):
            if not _is_complete(stage, config, workdir):
                _tell(stage, config, workdir, WHOLE)
            records[stage.name] = pipeline.run_stage(stage, config, workdir)
        report = stages_lib.get_stage("report")
        return records | {report.name: pipeline.run_stage(report, config, workdir)}


@faults.explained()
def run_part(config: ExperimentConfig, part: Part, *, command: str = "CONFIG") -> dict[str, Any]:
    """Run one part's missing shards of every stage, and return the records of the stages that are complete then.

    A stage that reads another one (`rescore` the bank) is taken up once that is complete, if it is while this part has
    other work. The part that completes the last stage also writes the report; without it among the records, others
    are still at work, or have been stopped.

    Raises:
        UserError: As for `run`; or the same part runs already, or parts of other settings or of another number do.
    """
    config, workdir = pipeline.prepared(config)
    stages = _stages(config)
    mark = config_lib.config_hash([stages_lib.fingerprint(stage, config) for stage in stages])
    _require_models(config, workdir, command)
    with locks.shared(workdir, str(part), f"a sweep in {part.count} parts with settings {mark}") as is_alone:
        records: dict[str, Any] = {}
        waiting = list(stages)
        try:
            while ready := [stage for stage in waiting if _can_begin(stage, config, workdir)]:
                waiting.remove(ready[0])
                stop.check()
                _run_share(ready[0], config, workdir, part)
        except BaseException:
            if is_alone():  # Otherwise another part may be about to write what this one began for all.
                for stage in stages:
                    pipeline.forget_unless_begun(stage, workdir)
            raise
        for stage in stages:
            if _is_complete(stage, config, workdir):
                records[stage.name] = records_lib.read(workdir / stage.name)
        if len(records) == len(stages) and not is_remote(workdir):
            report = stages_lib.get_stage("report")
            with locks.gate(workdir):
                records[report.name] = pipeline.run_stage(report, config, workdir)
        return records


def waits_for(config: ExperimentConfig) -> list[str]:
    """Return for each stage that is not complete what is missing of it, in a few words."""
    config, workdir = pipeline.prepared(config)
    found = []
    for stage in _stages(config):
        if not _is_complete(stage, config, workdir):
            every = _shards(stage, config, workdir)
            folder = _folder(stage, config, workdir)
            left = sum(folder is None or not all(is_there(p) for p in shard.paths(folder)) for shard in every)
            found.append(f"{stage.name} ({left} of {len(every)} shards missing)")
    return found


def _stages(config: ExperimentConfig) -> list[Stage]:
    return [stage for stage in map(stages_lib.get_stage, NAMES) if stage.wanted(config)]


def _require_models(config: ExperimentConfig, workdir: epath.Path, command: str) -> None:
    """Refuse to begin before everything that an evaluation and its report read from earlier stages is there."""
    own = {*NAMES, "report"}
    wanted = [stage for stage in stages_lib.STAGES if stage.name in own and stage.wanted(config)]
    read = {need.name for stage in wanted for need in stages_lib.needs_of(stage, config)}
    unfit = {
        s.name: state
        for s in stages_lib.STAGES
        if s.name in read - own and s.wanted(config) and (state := pipeline.unfit(s, config, workdir))
    }
    if unfit:
        commands = " && ".join(f"ttcjax {name} {command}" for name in unfit)
        told = ", ".join(f"{name}, which {state}" for name, state in unfit.items())
        raise UserError(f"a sweep needs {told}, in {workdir}: run `{commands}` first")


def _is_complete(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> bool:
    return not pipeline.unfit(stage, config, workdir)


def _can_begin(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> bool:
    return all(_is_complete(need, config, workdir) for need in stages_lib.needs_of(stage, config))


def _folder(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> epath.Path | None:
    """Return the folder with shards of these settings, `None` where there is none yet."""
    wanted = stages_lib.fingerprint(stage, config)
    for name in (stage.name, f"{stage.name}.partial", f"{stage.name}.old-{wanted}"):
        record = records_lib.read(workdir / name)
        if record is not None and record["fingerprint"] == wanted and is_there(workdir / name):
            return workdir / name
    return None


def _shards(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> list[Shard]:
    return stage.shards(config, _inputs(stage, config, workdir))


def _inputs(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> Inputs:
    """Return the folders that a stage reads, as far as there are any of these settings."""
    folders = {need.name: _folder(need, config, workdir) for need in stages_lib.needs_of(stage, config)}
    return Inputs({name: folder for name, folder in folders.items() if folder is not None})


def _tell(stage: Stage, config: ExperimentConfig, workdir: epath.Path, part: Part) -> None:
    """Log what is left of the whole sweep, this stage's shards first."""
    found = _plan(config, workdir, part)
    here = [cell for cell in found.cells if cell.stage == stage.name]
    missing, count = sum(cell.shards_left for cell in here), sum(cell.shards for cell in here)
    whose = "" if part == WHOLE else f" of part {part}"
    time_left = f"about {duration(found.known_seconds)} left" if found.known_seconds else "time not known yet"
    if found.known_seconds and found.unknown:
        time_left += f" without {', '.join(found.unknown)}"
    generations = f"{found.left.told}{found.left.generations:,.0f}"
    words = [
        f"sweep: {stage.name} is next, {missing} of {count} shards{whose} missing",
        f"in all {sum(cell.shards_left for cell in found.cells)} shards, {generations} generations",
        time_left,
    ]
    logger.info("%s", "; ".join(words))


# ---- parts


def _run_share(stage: Stage, config: ExperimentConfig, workdir: epath.Path, part: Part) -> None:
    """Run this part's missing shards of a stage, and complete the stage if no shard is missing then."""
    partial = workdir / f"{stage.name}.partial"
    with locks.gate(workdir):
        if pipeline.settle(stage, config, workdir) is not None:
            return
        pipeline.begin(stage, config, workdir, parts=True)
    schema = stage.declared.schema
    assert schema is not None
    every = _shards(stage, config, workdir)
    if shards.missing(part.of(every), partial, schema):
        _tell(stage, config, workdir, part)
        path = records_lib.part_path(partial, part.index, part.count)
        earlier = [json.loads(path.read_text())] if is_there(path) else []
        measured = pipeline.measure(stage, config, workdir, part=part)
        records_lib.write_json(path, _sum([*earlier, measured]))
    if is_remote(workdir):  # Nothing there keeps two parts from renaming a folder at once.
        return
    with locks.gate(workdir):
        if pipeline.settle(stage, config, workdir) is not None:
            return
        if not _all_there(every, partial) or shards.missing(every, partial, schema):
            return
        record = pipeline.begin(stage, config, workdir, parts=True)
        found = records_lib.parts(partial)
        if not found:  # The parts that made the shards were killed before they could say how long it took.
            found = [pipeline.measure(stage, config, workdir, part=part)]
        summed = _sum(found)
        pipeline.finish(stage, workdir, record | summed | {"seconds": record["seconds"] + summed["seconds"]})


def _all_there(every: list[Shard], folder: epath.Path) -> bool:
    return all(is_there(path) for shard in every for path in shard.paths(folder))


def _sum(found: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up what parts measured: their seconds are those of several processes in sum, their peak is the largest."""
    total = dict(found[-1])
    for key in ("seconds", "compile_seconds", "compilations"):
        total[key] = sum(one[key] for one in found)
    total["peak_rss_bytes"] = max(one["peak_rss_bytes"] for one in found)
    results = [one["result"] for one in found]
    total["result"] = dict(results[-1])
    for key in ("sampled", "sampling_seconds"):
        if key in results[-1]:
            total["result"][key] = sum(result[key] for result in results)
    if "seconds_per_question" in results[-1]:
        cells = dict.fromkeys(cell for result in results for cell in result["seconds_per_question"])
        total["result"]["seconds_per_question"] = {
            cell: sum(result["seconds_per_question"].get(cell, 0.0) for result in results) for cell in cells
        }
    return total
