"""What a run reads from outside its workdir: known by its content, and compared with what was read before.

Once a stage has read a file, the run does not need it any more. Where the file has changed since, the user says what
is to count: what was read then, or the file as it is now.
"""

from __future__ import annotations

import dataclasses
import logging
import os
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig, OwnVerifier, config_hash
from ttcjax.data import sources
from ttcjax.data.sets import data_set
from ttcjax.pipeline import stages
from ttcjax.runtime import records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import is_there, resolve
from ttcjax.text import prompts

logger = logging.getLogger(__name__)


def resolved(config: ExperimentConfig, workdir: epath.Path) -> ExperimentConfig:
    """Return the config with the hashes of its inputs, which are part of what stages depend on.

    Raises:
        UserError: An input is missing and was not read before, or has changed and `changed_inputs` refuses that.
    """
    config = _with_prompt(_with_data(config, workdir))
    return _with_verifiers(_with_samples(config, workdir), workdir)


def _with_data(config: ExperimentConfig, workdir: epath.Path) -> ExperimentConfig:
    folder = workdir / "data"
    read = _recorded(folder, "data", "data")
    known = read.get("content") if read.get("name") == config.data.name else None
    read_from = data_set(config.data)
    try:
        if config.data.dir is not None:
            config = _with(config, "data", dir=os.fspath(resolve(config.data.dir, "--data.dir", kind="folder")))
        files = read_from.read_files(config.data)
        if known is None:
            read_from.require_files(config.data, files)
        found = sources.digests(files)
    except (UserError, OSError):
        if known is None or config.changed_inputs == "read":
            raise
        found = None
    if found is None:
        place = config.data.dir or f"{config.data.name} of TensorFlow Datasets"
        logger.warning("%s is not there any more: what was read from it goes on to count", place)
    now = known if found is None else sources.content(found)
    same_place = read.get("dir") is not None and _same(read["dir"], config.data.dir)
    if found is not None and known is not None and now != known and same_place:
        told = _difference(folder, found)
        now = _choose(config, f"{config.data.dir} has changed since the data stage read it ({told})", known, now)
    config = _with_content(config, "data", config.data.content, now, "content")
    if known is not None and now == known and (found is None or sources.content(found) != known):
        _require_kept("data", config, workdir, sources.lost(config.data))
    return config


def _with_prompt(config: ExperimentConfig) -> ExperimentConfig:
    if config.data.prompt is None:
        return config
    if config.data.prompt not in prompts.names():
        config = _with(config, "data", prompt=os.fspath(resolve(config.data.prompt, "--data.prompt")))
    found = prompts.read(config.data.prompt or "").content
    return _with_content(config, "data", config.data.prompt_content, found, "prompt_content")


def _difference(folder: epath.Path, found: dict[str, list[bytes]]) -> str:
    try:
        return sources.difference(sources.read(folder), found)
    except UserError:  # The list of lines is damaged, which is for the data stage to mend.
        return "which lines cannot be told"


def _require_kept(name: str, config: ExperimentConfig, workdir: epath.Path, otherwise: UserError) -> None:
    """Refuse to go on with what a stage would have to read again from a place that does not hold it any more."""
    stage = stages.get_stage(name)
    wanted = stages.fingerprint(stage, config)
    for folder in (workdir / stage.name, workdir / f"{stage.name}.old-{wanted}"):
        record = records.read_complete(folder)
        if record is not None and record["fingerprint"] == wanted and not records.faults(folder, record):
            return
    raise otherwise


def _with_samples(config: ExperimentConfig, workdir: epath.Path) -> ExperimentConfig:
    if config.sweep.samples_from is None:
        return config
    folder = resolve(config.sweep.samples_from, "--sweep.samples_from", kind="folder")
    config = _with(config, "sweep", samples_from=os.fspath(folder))
    if folder == workdir / "bank":
        raise UserError(f"sweep.samples_from names this run's own bank: give another --workdir, or a copy of {folder}")
    read = _recorded(workdir / "bank", "bank", "sweep")
    known = read.get("samples_content")
    record = records.read_complete(folder)
    if record is None or record.get("stage") != "bank":
        if known is None or is_there(folder) or config.changed_inputs == "read":
            raise UserError(f"sweep.samples_from must name the folder of a finished bank, which {folder} is not")
        logger.warning("%s is not there any more: the samples that were read from it go on to count", folder)
        found, now = None, known
    else:
        found = now = config_hash(records.hashes(record))
    if known is not None and now != known and _same(read.get("samples_from"), config.sweep.samples_from):
        now = _choose(config, f"the bank {folder} is not the one that the bank stage read", known, now)
    config = _with_content(config, "sweep", config.sweep.samples_content, now, "samples_content")
    if known is not None and now == known and found != known:
        told = f"the bank stage is to read samples that {folder} does not hold"
        cure = "read what is there and make again what was made of it (--changed_inputs read)"
        _require_kept("bank", config, workdir, UserError(f"{told}: put the bank back as it was, or {cure}"))
    return config


def _with_verifiers(config: ExperimentConfig, workdir: epath.Path) -> ExperimentConfig:
    if not config.sweep.verifiers:
        return config
    from ttcjax.runtime import checkpoint  # imports jax

    read = _recorded(workdir / "rescore", "rescore", "sweep")
    before, known, wanted = (
        {own.name: own.place for own in map(OwnVerifier.parse, texts or ())}
        for texts in (read.get("verifiers"), read.get("verifiers_content"), config.sweep.verifiers_content)
    )
    placed, contents, lost = [], [], []
    for own in config.sweep.own_verifiers:
        folder = resolve(own.place, f"the folder of {own.name} in --sweep.verifiers", kind="folder")
        found = now = checkpoint.content(folder)
        if found is None:
            if own.name not in known or is_there(folder) or config.changed_inputs == "read":
                raise UserError(
                    f"sweep.verifiers: {folder}, of {own.name}, holds no model: name a folder such as runs/a/prm/best"
                )
            logger.warning("%s is not there any more: the scores of the model that was there go on to count", folder)
            now = known[own.name]
        elif own.name in known and found != known[own.name] and _same(before.get(own.name), own.place):
            now = _choose(
                config,
                f"the verifier {own.name} in {folder} is not the one that judged the bank",
                known[own.name],
                found,
            )
        if own.name in wanted and found is not None and wanted[own.name] != now:
            raise UserError(f"sweep.verifiers_content is of another model than {folder} holds: leave the setting out")
        placed.append(str(dataclasses.replace(own, place=os.fspath(folder))))
        contents.append(str(dataclasses.replace(own, place=now)))
        lost += [folder] * (found != now)
    config = _with(config, "sweep", verifiers=tuple(placed), verifiers_content=tuple(contents))
    if lost:
        cure = "put it back as it was, or read what is there (--changed_inputs read)"
        told = f"the rescore stage is to ask a verifier that {lost[0]} does not hold"
        _require_kept("rescore", config, workdir, UserError(f"{told}: {cure}"))
    return config


def _recorded(folder: epath.Path, stage: str, table: str) -> dict[str, Any]:
    """Return the settings with which a stage of this workdir was completed, an empty table where it was not."""
    record = records.read_complete(folder)
    return record.get("config", {}).get(table, {}) if record is not None and record.get("stage") == stage else {}


def _same(before: str | None, now: str | None) -> bool:
    return before is not None and now is not None and resolve(before) == resolve(now)


def _choose(config: ExperimentConfig, told: str, known: str, now: str | None) -> str | None:
    if config.changed_inputs == "refuse":
        raise UserError(
            f"{told}: put it back as it was, or go on with what was read then (--changed_inputs keep), or read it anew "
            "and make again what was made of it (--changed_inputs read)"
        )
    if config.changed_inputs == "keep":
        logger.warning("%s: what was read then goes on to count", told)
        return known
    logger.warning("%s: it is read anew", told)
    return now


def _with_content(
    config: ExperimentConfig, table: str, wanted: str | None, found: str | None, field: str
) -> ExperimentConfig:
    if wanted is not None and found is not None and wanted != found:
        raise UserError(f"{table}.{field} is to be {wanted}, and what is there has {found}: leave the setting out")
    return _with(config, table, **{field: found})


def _with(config: ExperimentConfig, table: str, **values: Any) -> ExperimentConfig:
    return dataclasses.replace(config, **{table: dataclasses.replace(getattr(config, table), **values)})
