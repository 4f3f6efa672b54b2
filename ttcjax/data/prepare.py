"""The data stage: examples on disk, a tokenizer trained on their text, and a manifest of both."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from etils import epath

from ttcjax.config import (
    SPEED_ONLY,
    DataConfig,
    ExperimentConfig,
    Questions,
    TokenizerConfig,
    TrainConfig,
    config_hash,
)
from ttcjax.data import loader
from ttcjax.data.screen import Fault
from ttcjax.data.task import Example, Splits, Task
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.files import write_bytes
from ttcjax.runtime.stage import Inputs, Sink, Stage
from ttcjax.text import tokenizer as tokenizer_lib
from ttcjax.text.familiar import Familiar
from ttcjax.text.prompt import encode_prompts, restated

logger = logging.getLogger(__name__)

MANIFEST_FILE = "manifest.json"
FAMILIAR_FILE = "familiar.npz"
"""Trigram model that tells whether a question is like those of the training split."""
LEFT_OUT_FILE = "left_out.csv"
"""The examples that cannot be used, and why."""


@dataclass(frozen=True)
class Settings:
    """Settings of the data stage."""

    data: DataConfig
    tokenizer: TokenizerConfig
    questions: Questions = field(metadata=SPEED_ONLY)
    """Questions that can be asked; the others are refused or listed, and stay in the files."""
    trainings: tuple[tuple[str, TrainConfig], ...] = field(metadata=SPEED_ONLY)
    """Training runs by the settings they come from: data of which one of them could use nothing is refused."""

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        trainings = [("policy", config.policy), ("prm.train", config.prm.train)]
        if config.revision.enabled:
            trainings.append(("revision.train", config.revision.train))
            if config.orm.revisions:
                trainings.append(("orm.train", config.orm.train))
        return cls(config.data, config.tokenizer, config.questions, tuple(trainings))


def _work(settings: Settings) -> str:
    data = settings.data
    return f"at most {data.num_train:,} + {data.num_valid:,} + {data.num_test:,} questions"


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Write examples, `tokenizer.model` and `manifest.json`; running it again changes nothing.

    Where nothing is trained and there are test questions alone, there is no tokenizer either: it is that of the models.

    Returns:
        The manifest: example counts and content hashes of each split, how many were left out, size and fingerprint of
        the tokenizer, and per split the lengths in tokens of prompts (begin mark included) and solutions (end mark
        included).

    Raises:
        UserError: The data cannot be read or written, has not what models or the tokenizer are trained on, or examples
            cannot be used and `data.faults` refuses them.
    """
    del inputs  # It is the first.
    out = sink.folder
    out.mkdir(parents=True, exist_ok=True)
    faults = loader.prepare(settings.data, out)
    task, splits = loader.load(settings.data, out)
    named = {name: list(getattr(splits, name)) for name in loader.SPLITS}
    manifest: dict[str, Any] = {
        "name": task.name,
        "config": config_hash(settings.data, settings.tokenizer),
        "counts": {name: len(examples) for name, examples in named.items()},
        "hashes": {name: _content_hash(examples) for name, examples in named.items()},
    }
    own = [MANIFEST_FILE, LEFT_OUT_FILE]
    if named["train"] or named["valid"] or settings.trainings:
        _require_training(settings, task, splits)
        more, too_long = _tokenize(settings, task, splits, out)
        manifest |= more
        faults = [*faults, *too_long]
        own += [tokenizer_lib.FILE, FAMILIAR_FILE, loader.LENGTHS_FILE]
    _write_left_out(out / LEFT_OUT_FILE, faults)
    manifest["left_out"] = len(faults)
    for name in loader.SPLITS:
        wanted = getattr(settings.data, f"num_{name}")
        if 0 < len(named[name]) < wanted:
            logger.warning("%d %s examples, fewer than data.num_%s=%d", len(named[name]), name, name, wanted)
    write_bytes(out / MANIFEST_FILE, (json.dumps(manifest, indent=2) + "\n").encode())
    sink.lists(*loader.files(settings.data), *own)
    return manifest


def _require_training(settings: Settings, task: Task, splits: Splits) -> None:
    """Refuse a data set that has not what training needs."""
    if not len(splits.train) and not len(splits.valid):
        raise UserError(
            f"{task.name} has no training questions here, and {', '.join(name for name, _ in settings.trainings)} "
            "need some: give a file of them with --data.train_file"
        )
    for name in loader.SPLITS:
        if not len(getattr(splits, name)):
            raise UserError(f"no {name} question is left: each is also one of a later split, or the file has none")
    if any(path == "policy" for path, _ in settings.trainings):
        splits.to_train_on("policy", solutions=True)


def _tokenize(settings: Settings, task: Task, splits: Splits, out: epath.Path) -> tuple[dict[str, Any], list[Fault]]:
    """Train the tokenizer and write it, the lengths of prompts and what training questions look like.

    Returns:
        Facts for the manifest, and why questions cannot be asked.

    Raises:
        UserError: As for `run`.
    """
    named = {name: list(getattr(splits, name)) for name in loader.SPLITS}
    texts = (_text(task, example) for example in named["train"])
    tokenizer = tokenizer_lib.train(texts, settings.tokenizer)
    asked = {name: encode_prompts(tokenizer, [task.prompt(e.question) for e in named[name]]) for name in loader.SPLITS}
    prompts = {name: np.array([len(row) for row in rows], np.int64) for name, rows in asked.items()}
    fits = {name: lengths <= settings.questions.longest_prompt for name, lengths in prompts.items()}
    too_long = loader.too_long(settings.questions, splits, fits)
    if too_long and settings.data.faults == "refuse":
        for name in loader.files(settings.data):
            if (out / name).is_file():  # Read from files in a moment; generated records are kept.
                (out / name).unlink()
        raise loader.too_long_refusal(too_long)
    solutions = {
        name: tokenizer.encode_batch([example.solution for example in examples]) for name, examples in named.items()
    }
    written = {name: np.array([len(row) for row in rows], np.int64) + 1 for name, rows in solutions.items()}
    # An example of training has every token but the end mark, which is only predicted.
    _require_some(settings.trainings, fits, {name: prompts[name] + written[name] - 1 for name in loader.SPLITS})
    tokenizer.save(out / tokenizer_lib.FILE)
    content = io.BytesIO()
    np.savez(content, **prompts)  # type: ignore[arg-type]
    write_bytes(out / loader.LENGTHS_FILE, content.getvalue())
    seen, held = ([restated(tokenizer, row) for row in asked[name]] for name in ("train", "valid"))
    Familiar.fit(seen, held, tokenizer.vocab_size).save(out / FAMILIAR_FILE)
    for name in loader.SPLITS:
        limit = settings.questions.max_seq_len
        # Without the questions that are refused or left out.
        if over := int((fits[name] & (prompts[name] + written[name] > limit)).sum()):
            logger.warning(
                "%d of %d %s examples are longer than model.max_seq_len=%d tokens, and none is trained on whole",
                over,
                int(fits[name].sum()),
                name,
                limit,
            )
    manifest = {
        "tokenizer": {"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint},
        "tokens": {name: {"prompt": _summary(prompts[name]), "solution": _summary(written[name])} for name in named},
    }
    return manifest, too_long


def _text(task: Task, example: Example) -> str:
    """Return all that may be written of an example: attempts that fail have pieces that no solution has."""
    failed = task.failing(example, 1, random.Random(example.id))
    return task.prompt(example.question) + "\n".join(
        (example.solution, *(task.steps.join(draft.lines) for draft in failed))
    )


def _write_left_out(path: epath.Path, faults: Sequence[Fault]) -> None:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(("where", "what"))
    writer.writerows((fault.where, fault.what) for fault in faults)
    write_bytes(path, sink.getvalue().encode())
    if faults:
        count = "1 example" if len(faults) == 1 else f"{len(faults)} examples"
        logger.warning("%s cannot be used, left out: %s says which and why", count, path.name)


def _content_hash(examples: Iterable[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        fields = [example.id, example.question, example.solution, example.answer, example.level, example.subject]
        digest.update(json.dumps(fields).encode())
    return digest.hexdigest()[:16]


def _require_some(
    trainings: Sequence[tuple[str, TrainConfig]], fits: dict[str, np.ndarray], lengths: dict[str, np.ndarray]
) -> None:
    """Refuse data of which a later stage could use nothing.

    Args:
        trainings: Training runs by the settings they come from.
        fits: For each split, which questions leave room for a solution.
        lengths: Tokens of the training example of every question with its reference solution.
    """
    for name, kept in fits.items():
        if not kept.any():
            raise UserError(f"no {name} question can be used: each is too long; raise model.max_seq_len")
    for name in ("train", "valid"):
        shortest = int(lengths[name][fits[name]].min())
        for path, train in trainings:
            if shortest > train.seq_len:
                raise UserError(
                    f"{path}.seq_len={train.seq_len} is less than every {name} question takes with its solution: "
                    f"raise it to {shortest} tokens or more"
                )


def _summary(lengths: np.ndarray) -> dict[str, float]:
    if not lengths.size:
        return {"mean": 0.0, "p95": 0.0, "max": 0}
    return {
        "mean": round(float(lengths.mean()), 2),
        "p95": float(np.percentile(lengths, 95)),
        "max": int(lengths.max()),
    }


STAGE = Stage(Settings.of, run, writes=(tokenizer_lib.FILE,), version=2, work=_work)
