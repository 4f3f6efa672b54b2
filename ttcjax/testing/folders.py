"""Folders of complete stages, made by hand: for tests of what reads them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.runtime import records
from ttcjax.runtime.shards import WHOLE, Part
from ttcjax.runtime.stage import Inputs, Sink, Stage


def complete(folder: epath.PathLike, names: Sequence[str] | None = None, **record: Any) -> dict[str, Any]:
    """Write the record of a folder as a finished stage would, and return it.

    Args:
        folder: The stage's, with its files; it is made where it is not there.
        names: Its own files; by default all that lie in it.
        **record: Entries of the record, such as `result`, `config` or `fingerprint`.
    """
    folder = epath.Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    own = [path.name for path in folder.iterdir()] if names is None else names
    written = {
        "stage": folder.name,
        "complete": True,
        "fingerprint": "0" * 16,
        "attempts": 1,
        "seconds": 1.0,
        "started": 0.0,
        "files": records.identities(folder, own),
        "result": {},
        **record,
    }
    records.write(folder, written)
    return written


def run_stage(
    declared: Stage[Any], config: ExperimentConfig, workdir: epath.PathLike, out: epath.PathLike, part: Part = WHOLE
) -> dict[str, Any]:
    """Run the code of a stage alone, without a record, and return its result with the `files` that it lists.

    Args:
        declared: The `STAGE` of its module.
        config: The experiment.
        workdir: Holds the folders that the stage reads, by the stages' names.
        out: Where it writes.
        part: Which of its shards are made.
    """
    settings = declared.settings(config)
    inputs = Inputs.of(epath.Path(workdir), (*declared.needs, *declared.also_needs(settings)))
    sink = Sink(epath.Path(out), part)
    return declared.run(settings, inputs, sink) | {"files": sink.files}
