"""The stages of an experiment, run safely: complete ones are skipped, interrupted ones resumed, outdated ones kept.

A stage writes into `<workdir>/<stage>.partial`, which becomes `<workdir>/<stage>` when it is done. Its record
(`ttcjax.runtime.records`) holds a fingerprint of the settings that decide its results, those of the stages it reads
included, and a list of its files. Nothing that was computed is ever deleted.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import io
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

from etils import epath

from ttcjax import config as config_lib
from ttcjax.config import ExperimentConfig
from ttcjax.pipeline import stages as stages_lib
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import faults, locks, records, stop
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import free, is_there, resolve_workdir
from ttcjax.runtime.shards import WHOLE, Part
from ttcjax.runtime.stage import Inputs, Sink

logger = logging.getLogger(__name__)

_LIBRARIES = ("ttcjax", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "grain", "sentencepiece")

DAMAGED = "damaged"
"""Folder under the workdir to which files go whose bytes are not those that were written."""


@faults.explained()
def run(
    config: ExperimentConfig,
    *,
    only: str | None = None,
    command: str = "CONFIG",
    made: Callable[[Stage, epath.Path], None] = lambda stage, workdir: None,
) -> dict[str, Any]:
    """Run every stage in order, or one of them, and return each stage's record.

    Args:
        config: Decides everything, the workdir included.
        only: Name of the one stage to run; the stages it reads must be complete.
        command: The config as the user names it, for messages that say what to run next.
        made: Called after each stage that was not complete before.

    Raises:
        MachineError: The machine refuses: no space, permission, memory or network. What is finished is kept.
        UserError: A stage that `only` reads is missing, or another run holds the workdir.
    """
    chosen = wanted_stages(config, only)
    config, workdir = prepared(config)
    if only is not None:
        require_needs(chosen[0], config, workdir, command)
    for line in device_shares(config, chosen).values():
        logger.info("%s", line)
    with locks.alone(workdir):
        if only is not None:
            require_needs(chosen[0], config, workdir, command)
        return {stage.name: run_stage(stage, config, workdir, made) for stage in chosen}


def wanted_stages(config: ExperimentConfig, only: str | None = None) -> list[Stage]:
    """Return the stages that an experiment has, each as soon as what it reads is there, or the one that is named.

    Raises:
        UserError: There is none of that name, or it is off in this config.
    """
    if only is None:
        left = [stage for stage in stages_lib.STAGES if stage.wanted(config)]
        needs, ordered = {stage.name: set(stage.needs(config)) for stage in left}, list[Stage]()
        while left:
            waited_for = {stage.name for stage in left}
            ready = next(stage for stage in left if needs[stage.name].isdisjoint(waited_for))
            left.remove(ready)
            ordered.append(ready)
        return ordered
    stage = stages_lib.get_stage(only)
    if not stage.wanted(config):
        raise UserError(f"stage {only!r} is off in this config: turn it on with --{stage.turned_on_by}")
    return [stage]


def prepared(config: ExperimentConfig) -> tuple[ExperimentConfig, epath.Path]:
    """Refuse what could not come to its end, before anything runs or is written.

    Returns:
        The config with the hashes of what it reads from outside the workdir and with its paths as they are read
        everywhere, and the workdir.

    Raises:
        UserError: A path, a list or a strategy cannot be used, or an input has changed.
    """
    from ttcjax.pipeline import inputs  # imports pyarrow, which reading this module does not need
    from ttcjax.search import registry  # imports jax

    sweep, temperature = config.sweep, config.sampler.temperature
    registry.check_for_sweep(sweep.strategies, sweep.budgets, temperature, revises=config.revision.enabled)
    workdir = resolve_workdir(config.workdir)
    config = dataclasses.replace(config, workdir=os.fspath(workdir))
    return inputs.resolved(config, workdir), workdir


def device_shares(config: ExperimentConfig, chosen: Iterable[Stage]) -> dict[str, str]:
    """Return how the rows of each training run of some stages stand on the devices, where they do not fill all evenly.

    Returns:
        A line for each such run, by its name.

    Raises:
        UserError: The platform that JAX is to run on is not here.
    """
    from ttcjax.parallel import all_devices, process_count  # imports jax
    from ttcjax.train.shares import run_share

    devices, processes = len(all_devices()), process_count()
    found = [
        run_share(name, train, devices, processes)
        for stage in chosen
        for name, train in stage.declared.trainings(stage.settings(config))
    ]
    return {run.name: str(run) for run in found if run.share.padding or run.share.devices < run.available}


def require_needs(stage: Stage, config: ExperimentConfig, workdir: epath.Path, command: str) -> None:
    """Refuse to run a stage before those that it reads are there.

    Raises:
        UserError: One is missing, was made with other settings or is damaged.
    """
    for need in stages_lib.needs_of(stage, config):
        if state := unfit(need, config, workdir):
            raise UserError(
                f"stage {stage.name!r} reads {need.name!r}, which {state} in {workdir}: "
                f"run `ttcjax {need.name} {command}` first"
            )


def unfit(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> str:
    """Return why what a stage has written cannot be read for this config, in words; nothing where it can."""
    record = records.read_complete(workdir / stage.name)
    if record is None:
        unfinished = records.read(workdir / stage.name) is not None
        return "is missing" if unfinished else records.why_none(workdir / stage.name)
    if record["fingerprint"] != stages_lib.fingerprint(stage, config):
        return "was made with other settings"
    if wrong := wrong_files(stage, workdir / stage.name, record):
        name, why = next(iter(wrong.items()))
        return f"is damaged ({name} {why})"
    return ""


def run_stage(
    stage: Stage,
    config: ExperimentConfig,
    workdir: epath.Path,
    made: Callable[[Stage, epath.Path], None] = lambda stage, workdir: None,
) -> dict[str, Any]:
    """Run one stage, unless it is complete, and return its record; the caller holds the workdir's lock."""
    stop.check()
    record = settle(stage, config, workdir)
    if record is None:
        record = _compute(stage, config, workdir)
        made(stage, workdir)
    stop.check()
    return record


def settle(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> dict[str, Any] | None:
    """Return the record of a stage that is complete for this config, else make way for it.

    Folders of other settings are moved aside, and a complete one of these settings is moved back. What is then left in
    `<stage>.partial` is of these settings.
    """
    with stop.guarded():
        return _settle(stage, stages_lib.fingerprint(stage, config), workdir)


def _settle(stage: Stage, wanted: str, workdir: epath.Path) -> dict[str, Any] | None:
    final, partial, kept = (workdir / f"{stage.name}{suffix}" for suffix in ("", ".partial", f".old-{wanted}"))
    record = records.read(final)
    mine = record is not None and record["fingerprint"] == wanted
    if record is not None and record["complete"] and not is_there(final):
        # Killed between a record and the rename that it belongs to.
        source = next((folder for folder in (partial, kept) if is_there(folder) and mine), None)
        if source is not None and not records.faults(source, record):
            source.rename(final)
    if is_there(final):
        if mine and record is not None and record["complete"]:
            wrong = wrong_files(stage, final, record)
            if not wrong:
                fresh = records.refreshed(final, record)
                if fresh != record:
                    records.write(final, fresh)
                logger.info("%s: complete", stage.name)
                return fresh
            record = _make_way_for_repair(stage, final, record, wrong)
            mine = record is not None
        else:
            own = record if record is not None and record["complete"] else None
            why = (
                "was made with other settings or of other files"
                if own is not None
                else "has no record that can be read"
            )
            _move_aside(final, own, f"{stage.name} {why}")
            record = None if own is not None else record
    if is_there(partial) and (not mine or record is None):
        _move_aside(partial, record, f"an unfinished {stage.name} was begun with other settings")

    kept_record = records.read_complete(kept)
    if kept_record is not None and not is_there(partial) and not records.faults(kept, kept_record):
        records.move(kept, final)
        logger.info("%s: complete (moved back from %s)", stage.name, kept.name)
        return kept_record
    return None


def wrong_files(stage: Stage, folder: epath.Path, record: dict[str, Any]) -> dict[str, str]:
    """Return what is wrong with the files of a complete stage, by name; see `records.faults`."""
    gone = {name: "is gone" for name in stage.writes if not is_there(folder / name)}
    return gone | records.faults(folder, record)


def _make_way_for_repair(
    stage: Stage, final: epath.Path, record: dict[str, Any], wrong: dict[str, str]
) -> dict[str, Any] | None:
    """Keep the whole shards of a stage of shards, to be completed; move any other stage aside, to be made again."""
    name, why = next(iter(wrong.items()))
    partial = final.parent / f"{final.name}.partial"
    told = f"{final / name} {why}" + (f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else "")
    if stage.writes or is_there(partial):
        _move_aside(final, record, f"{told}, and {stage.name} is made again", f"{DAMAGED}-")
        return None
    aside = final.parent / DAMAGED
    for name in wrong:
        if is_there(final / name):
            aside.mkdir(exist_ok=True)
            (final / name).rename(free(aside / f"{final.name}-{name}"))
    logger.warning("%s: %d of %d files are made again: %s", stage.name, len(wrong), len(record["files"]), told)
    record = {key: value for key, value in record.items() if key != "files"} | {"complete": False}
    final.rename(partial)
    records.write(final, record)
    return record


def _move_aside(folder: epath.Path, record: dict[str, Any] | None, why: str, kind: str = "old-") -> None:
    target = free(folder.parent / f"{folder.name}.{kind}{record['fingerprint'] if record else 'unknown'}")
    if record is not None:
        records.move(folder, target)
    else:
        folder.rename(target)
    logger.warning("%s: it is kept as %s", why, target)


def _compute(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> dict[str, Any]:
    """Run the stage's code in its partial folder, publish the folder, and return the record written there."""
    record = begin(stage, config, workdir)
    try:
        measured = measure(stage, config, workdir)
    except BaseException:
        forget_unless_begun(stage, workdir)
        raise
    return finish(stage, workdir, record | measured | {"seconds": record["seconds"] + measured["seconds"]})


def forget_unless_begun(stage: Stage, workdir: epath.Path) -> None:
    """Remove the folder and the record of a stage that ended before it wrote anything."""
    partial = workdir / f"{stage.name}.partial"
    with contextlib.suppress(OSError):
        record = records.read(partial) if is_there(partial) else None
        if record is None or record["complete"] or record["attempts"] > 1 or not _is_hollow(partial):
            return
        _remove(partial)


def _remove(partial: epath.Path) -> None:
    """Remove a folder in which nothing was written, and its record."""
    with contextlib.suppress(OSError):
        if _is_hollow(partial):
            partial.rmtree()
    with contextlib.suppress(OSError):
        path = records.path_of(partial)
        path.unlink(missing_ok=True)
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


def _is_hollow(folder: epath.Path) -> bool:
    return all(path.is_dir() and _is_hollow(path) for path in folder.iterdir())


def begin(stage: Stage, config: ExperimentConfig, workdir: epath.Path, *, parts: bool = False) -> dict[str, Any]:
    """Make the partial folder of a stage or take up an interrupted one, and return its record.

    Args:
        stage: The stage, settled.
        config: The experiment.
        workdir: Its folder.
        parts: Several processes work on the stage; the first to come begins it for all.
    """
    partial = workdir / f"{stage.name}.partial"
    earlier = records.read(partial) if is_there(partial) else None
    if parts and earlier is not None and earlier.get("parts"):
        return earlier
    logger.info("%s: %s", stage.name, stage.summary if earlier is None else "resuming an interrupted run")
    record: dict[str, Any] = {
        "stage": stage.name,
        "complete": False,
        "fingerprint": stages_lib.fingerprint(stage, config),
        "attempts": 1 if earlier is None else earlier["attempts"] + 1,
        "seconds": 0.0 if earlier is None else earlier["seconds"] + _seconds_of_last_attempt(partial, earlier),
        "started": time.time(),
        "config": config_lib.to_dict(config),
    } | ({"parts": True} if parts else {})
    with stop.guarded():
        try:
            partial.mkdir(parents=True, exist_ok=True)
            records.write(partial, record)
        except OSError:  # A full disk: nothing is begun.
            if earlier is None:
                _remove(partial)
            raise
        for path in records.part_paths(partial):  # Their seconds are in the record now.
            path.unlink()
    return record


def measure(stage: Stage, config: ExperimentConfig, workdir: epath.Path, part: Part = WHOLE) -> dict[str, Any]:
    """Run the stage's code in its partial folder and return its result, its files and what it cost."""
    from ttcjax.runtime.progress import CompileClock, peak_rss_bytes  # imports jax, which a skipped stage does not need

    settings = stage.settings(config)
    inputs = Inputs.of(workdir, [need.name for need in stages_lib.needs_of(stage, config)])
    sink = Sink(workdir / f"{stage.name}.partial", part)
    begin = time.perf_counter()
    with CompileClock() as clock:
        result = stage.declared.run(settings, inputs, sink)
    seconds = time.perf_counter() - begin
    logger.info("%s: done in %.1f s, %.1f s of it compiling", stage.name, seconds, clock.seconds)
    return {
        "seconds": seconds,
        "compile_seconds": clock.seconds,
        "compilations": clock.compilations,
        "peak_rss_bytes": peak_rss_bytes(),
        "files": sink.files,
        "result": result,
    }


def finish(stage: Stage, workdir: epath.Path, record: dict[str, Any]) -> dict[str, Any]:
    """Open the files of a stage that is done once more, list them in its record, publish its folder.

    Returns:
        The record.

    Raises:
        UserError: A file cannot be read back.
    """
    partial, final = workdir / f"{stage.name}.partial", workdir / stage.name
    names = dict.fromkeys([*record["files"], *(name for name in stage.writes if not name.startswith(".."))])
    _open_again(partial, names)
    files = records.identities(partial, names)
    record |= {"complete": True, "versions": _versions(), "files": files}
    with stop.guarded():
        records.write(partial, record)
        partial.rename(final)
    return record


def _open_again(folder: epath.Path, names: Iterable[str]) -> None:
    """Read back what a stage has written, models and rows as the next stages will."""
    import pyarrow.parquet as pq

    for name in names:
        path = folder / name
        if path.is_dir() and is_there(path / "metadata.json"):
            from ttcjax.runtime.checkpoint import load_params  # imports jax

            load_params(path)
        elif name.endswith(".parquet"):
            try:
                content = path.read_bytes()
            except OSError as error:
                faults.raise_explained(error)
                raise
            try:
                pq.ParquetFile(io.BytesIO(content)).metadata  # noqa: B018
            except (OSError, ValueError) as error:  # Arrow's, of the bytes.
                raise records.damaged(path, "it was just written and cannot be read back") from error


def _seconds_of_last_attempt(partial: epath.Path, record: dict[str, Any]) -> float:
    """Return how long an attempt worked that had no chance to say so: until the last file it wrote.

    Parts that came to their ends have said so.
    """
    if record.get("parts"):
        return sum(part["seconds"] for part in records.parts(partial))
    last = max((path.stat().mtime for path in partial.iterdir()), default=0.0)
    return max(0.0, last - record["started"])


def states(workdir: epath.PathLike) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Return (stage, state, record) for every stage.

    The state is `complete`, `unfinished`, `missing`, or begins with `damaged` and says what is wrong.

    Raises:
        UserError: There is no such workdir.
    """
    workdir = resolve_workdir(workdir, "WORKDIR")
    if not workdir.is_dir():
        raise UserError(f"no workdir {workdir}: `ttcjax run CONFIG --workdir {workdir}` makes it")
    found = []
    for stage in stages_lib.STAGES:
        record = records.read(workdir / stage.name)
        if record is None and is_there(workdir / stage.name):
            told = f"damaged: it {records.why_none(workdir / stage.name)}; a run keeps the folder aside"
            found.append((stage.name, told, None))
        elif record is None:
            found.append((stage.name, "missing", None))
        elif not record["complete"] and is_there(workdir / f"{stage.name}.partial"):
            found.append((stage.name, "unfinished", record))
        elif not is_there(workdir / stage.name):
            found.append((stage.name, "missing", None))
        elif wrong := wrong_files(stage, workdir / stage.name, record):
            name, why = next(iter(wrong.items()))
            found.append((stage.name, f"damaged: {name} {why}", record))
        else:
            found.append((stage.name, "complete", record))
    return found


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
