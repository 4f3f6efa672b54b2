"""The stages of an experiment: what each depends on, which are complete, and how one is run safely.

A stage writes into `<workdir>/<stage>.partial`, which becomes `<workdir>/<stage>` when it is done. Its
`stage.json` holds a fingerprint of the settings that decide its results, those of the stages it reads
included, so a complete stage is skipped, an interrupted one is resumed, and one made with other
settings is moved aside. Nothing that was computed is ever deleted.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any

from etils import epath

from ttcjax import config as config_lib
from ttcjax import stages as stages_lib
from ttcjax.config import ExperimentConfig
from ttcjax.errors import UserError
from ttcjax.files import absolute, write_bytes
from ttcjax.stages import Stage

logger = logging.getLogger(__name__)

RECORD = "stage.json"
MANIFEST = "shards.json"
"""Size and hash of every shard of a stage, for those to whom its folder is given."""
PART_RECORDS = "part-*.json"
"""What each of several processes leaves in the partial folder of a stage that they share."""
LOCK = ".lock"
_LIBRARIES = ("ttcjax", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "grain", "sentencepiece")


def run(config: ExperimentConfig, *, only: str | None = None, command: str = "CONFIG") -> dict[str, Any]:
    """Run every stage in order, or one of them, and return each stage's record.

    Args:
        config: Decides everything, the workdir included.
        only: Name of the one stage to run; the stages it reads must be complete.
        command: The config as the user names it, for messages that say what to run next.

    Raises:
        UserError: A stage that `only` reads is missing, or another run holds the workdir.
    """
    from ttcjax.search import registry  # imports jax, which reading this module does not need

    registry.check_for_sweep(config.sweep.strategies, config.sweep.budgets)
    stages = (
        [stage for stage in stages_lib.STAGES if stage.wanted(config)] if only is None else [stages_lib.get_stage(only)]
    )
    if not stages[0].wanted(config):
        raise UserError(f"stage {only!r} is off in this config: turn it on with --{stages[0].switch} True")
    workdir = absolute(config.workdir)
    check_samples(config, workdir)
    with locked(workdir):
        if only is not None:
            _require_needs(stages[0], config, workdir, command)
        return {stage.name: run_stage(stage, config, workdir) for stage in stages}


def _require_needs(stage: Stage, config: ExperimentConfig, workdir: epath.Path, command: str) -> None:
    for need in stages_lib.needs_of(stage, config):
        record = read_record(workdir / need.name)
        if record is None or record["fingerprint"] != stages_lib.fingerprint(need, config):
            state = "is missing in" if record is None else "was made with other settings in"
            raise UserError(
                f"stage {stage.name!r} reads {need.name!r}, which {state} {workdir}: "
                f"run `ttcjax {need.name} {command}` first"
            )


def run_stage(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> dict[str, Any]:
    """Run one stage, unless it is complete, and return its record; the caller holds the workdir's lock."""
    record = settle(stage, config, workdir)
    if record is None:
        record = _compute(stage, config, workdir)
    return record


def settle(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> dict[str, Any] | None:
    """Return the record of a stage that is complete for this config, else make way for it.

    Folders of other settings are moved aside, and a complete one of these settings is moved back. What is then left in
    `<stage>.partial` is of these settings.
    """
    final, partial = workdir / stage.name, workdir / f"{stage.name}.partial"
    wanted = stages_lib.fingerprint(stage, config)
    record = read_record(final)
    if record is not None and record["fingerprint"] == wanted:
        gone = [name for name in stage.writes if not (final / name).exists()]
        lost = lost_shards(stage, final)
        if not gone and not lost:
            logger.info("%s: complete", stage.name)
            return record
        write_json(final / RECORD, record | {"complete": False})
        if gone or partial.exists():
            _move_aside(final, record, f"{stage.name} lacks {[*gone, *lost][0]} and is made again")
        else:
            logger.warning("%s lacks %d of its shards, which are made again: %s", stage.name, len(lost), lost[0])
            final.rename(partial)
    elif final.exists():
        _move_aside(final, record, f"{stage.name} was made with other settings")

    record = read_record(partial)
    if record is not None and record["fingerprint"] == wanted and record["complete"]:
        # Killed between the last write and the rename.
        partial.rename(final)
        logger.info("%s: complete", stage.name)
        return record
    if partial.exists() and (record is None or record["fingerprint"] != wanted):
        _move_aside(partial, record, f"an unfinished {stage.name} was begun with other settings")

    kept = workdir / f"{stage.name}.old-{wanted}"
    kept_record = read_record(kept)
    if kept_record is not None and kept_record["complete"] and not partial.exists():
        kept.rename(final)
        logger.info("%s: complete (moved back from %s)", stage.name, kept.name)
        return kept_record
    return None


def lost_shards(stage: Stage, folder: epath.Path) -> list[str]:
    """Return the shards of a complete stage that are gone or of another size.

    Those of a stage that is known by what else it writes were on its way, and nobody misses them.
    """
    manifest = folder / MANIFEST
    if stage.writes or not manifest.exists():
        return []
    try:
        files = json.loads(manifest.read_text())["files"]
        paths = {name: (folder / name, identity["bytes"]) for name, identity in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{manifest} is corrupt: delete it") from error
    return [name for name, (path, size) in paths.items() if not path.exists() or path.stat().length != size]


def check_samples(config: ExperimentConfig, workdir: epath.Path) -> None:
    """Refuse a `sweep.samples_from` that holds no bank, before anything is moved for it.

    Raises:
        UserError: It names no finished bank, or this run's own.
    """
    if config.sweep.samples_from is None:
        return
    folder = absolute(config.sweep.samples_from)
    record = read_record(folder)
    if record is None or not record["complete"] or record.get("stage") != "bank":
        raise UserError(f"sweep.samples_from must name the folder of a finished bank, which {folder} is not")
    if folder == workdir / "bank":
        raise UserError(f"sweep.samples_from names this run's own bank: give another --workdir, or a copy of {folder}")


def _compute(stage: Stage, config: ExperimentConfig, workdir: epath.Path) -> dict[str, Any]:
    """Run the stage's code in its partial folder, publish the folder, and return the record written there."""
    record = begin(stage, config, workdir)
    measured = measure(stage, config, workdir)
    return finish(stage, workdir, record | measured | {"seconds": record["seconds"] + measured["seconds"]})


def begin(stage: Stage, config: ExperimentConfig, workdir: epath.Path, *, parts: bool = False) -> dict[str, Any]:
    """Make the partial folder of a stage or take up an interrupted one, and return its record.

    Args:
        stage: The stage, settled.
        config: The experiment.
        workdir: Its folder.
        parts: Several processes work on the stage; the first to come begins it for all.
    """
    partial = workdir / f"{stage.name}.partial"
    earlier = read_record(partial)
    if parts and earlier is not None and earlier.get("parts"):
        return earlier
    logger.info("%s: %s", stage.name, stage.summary if earlier is None else "resuming an interrupted run")
    partial.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {
        "stage": stage.name,
        "complete": False,
        "fingerprint": stages_lib.fingerprint(stage, config),
        "attempts": 1 if earlier is None else earlier["attempts"] + 1,
        "seconds": 0.0 if earlier is None else earlier["seconds"] + _seconds_of_last_attempt(partial, earlier),
        "started": time.time(),
    } | ({"parts": True} if parts else {})
    write_json(partial / "config.json", config_lib.to_dict(config))
    write_json(partial / RECORD, record)
    for path in partial.glob(PART_RECORDS):  # Their seconds are in the record now.
        path.unlink()
    return record


def measure(stage: Stage, config: ExperimentConfig, workdir: epath.Path, **options: Any) -> dict[str, Any]:
    """Run the stage's code in its partial folder and return its result and what it cost."""
    from ttcjax.metrics import CompileClock, peak_rss_bytes  # imports jax, which a skipped stage does not need

    module = importlib.import_module(stage.module)
    begin = time.perf_counter()
    with CompileClock() as clock:
        result = module.run(config, workdir, workdir / f"{stage.name}.partial", **options)
    seconds = time.perf_counter() - begin
    logger.info("%s: done in %.1f s, %.1f s of it compiling", stage.name, seconds, clock.seconds)
    return {
        "seconds": seconds,
        "compile_seconds": clock.seconds,
        "compilations": clock.compilations,
        "peak_rss_bytes": peak_rss_bytes(),
        "result": result,
    }


def finish(stage: Stage, workdir: epath.Path, record: dict[str, Any]) -> dict[str, Any]:
    """Write the record of a stage that is done, publish its folder, and return the record."""
    partial = workdir / f"{stage.name}.partial"
    shards = [*partial.glob("shard-*.parquet"), *partial.glob("*/shard-*.parquet")]
    if shards:
        files = {str(path.relative_to(partial)): _identity(path) for path in sorted(shards, key=str)}
        write_json(partial / MANIFEST, {"stage": stage.name, "fingerprint": record["fingerprint"], "files": files})
    record |= {"complete": True, "versions": _versions()}
    write_json(partial / RECORD, record)
    partial.rename(workdir / stage.name)
    return record


def _identity(path: epath.Path) -> dict[str, int | str]:
    content = path.read_bytes()
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def _seconds_of_last_attempt(partial: epath.Path, record: dict[str, Any]) -> float:
    """Return how long an attempt worked that had no chance to say so: until the last file it wrote.

    Parts that came to their ends have said so.
    """
    if record.get("parts"):
        return sum(json.loads(path.read_text())["seconds"] for path in partial.glob(PART_RECORDS))
    last = max((path.stat().mtime for path in partial.iterdir()), default=0.0)
    return max(0.0, last - record["started"])


def _move_aside(folder: epath.Path, record: dict[str, Any] | None, why: str) -> None:
    target = base = f"{folder.name}.old-{record['fingerprint'] if record else 'unknown'}"
    count = 1
    while (folder.parent / target).exists():
        count += 1
        target = f"{base}-{count}"
    folder.rename(folder.parent / target)
    logger.warning("%s: it is kept as %s", why, folder.parent / target)


def read_record(folder: epath.Path) -> dict[str, Any] | None:
    """Return the record of a stage folder, or `None` where there is none that can be read."""
    try:
        record = json.loads((folder / RECORD).read_text())
    except (FileNotFoundError, NotADirectoryError, json.JSONDecodeError):
        return None
    known = isinstance(record, dict) and {"fingerprint", "complete", "attempts", "seconds", "started"} <= set(record)
    return record if known else None


def states(workdir: epath.PathLike) -> list[tuple[str, str, dict[str, Any] | None]]:
    """Return (stage, state, record) for every stage; state is `complete`, `unfinished` or `missing`."""
    folder = epath.Path(workdir)
    found = []
    for stage in stages_lib.STAGES:
        record, unfinished = read_record(folder / stage.name), read_record(folder / f"{stage.name}.partial")
        if record is not None:
            found.append((stage.name, "complete", record))
        elif unfinished is not None:
            found.append((stage.name, "unfinished", unfinished))
        else:
            found.append((stage.name, "missing", None))
    return found


def write_json(path: epath.Path, value: Any) -> None:
    """Write JSON so that a reader sees the whole file or the one that was there before."""
    write_bytes(path, (json.dumps(value, indent=2) + "\n").encode())


@contextlib.contextmanager
def locked(workdir: epath.Path) -> Iterator[None]:
    """Hold the workdir against a second run on it.

    The lock belongs to the process: the system drops it when the process ends, however it ends, so a
    killed run leaves nothing to clean up. Object stores have no such locks; there the caller must see
    to it that one run at a time uses a workdir.

    Raises:
        UserError: Another process holds the workdir, or it cannot be written.
    """
    if "://" in os.fspath(workdir):
        yield
        return
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        handle = os.open(workdir / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise UserError(f"cannot write in workdir {workdir}: {error.strerror}; choose another with --workdir") from None
    try:
        # Not flock: its locks are inherited by forked workers, which may outlive a killed parent.
        fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        holder = os.read(handle, 200).decode(errors="replace").strip() or "another process"
        os.close(handle)
        raise UserError(
            f"workdir {workdir} is in use by {holder}: wait for it to end, or choose another with --workdir"
        ) from None
    try:
        os.truncate(handle, 0)
        os.write(handle, f"process {os.getpid()} on {socket.gethostname()}\n".encode())
        yield
    finally:
        os.close(handle)


def _versions() -> dict[str, str]:
    found = {"python": platform.python_version(), "platform": sys.platform}
    for name in _LIBRARIES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found
