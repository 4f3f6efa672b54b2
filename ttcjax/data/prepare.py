"""The data stage: records on disk, a tokenizer trained on their text, and a manifest of both."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from etils import epath

from ttcjax.config import ExperimentConfig, config_hash
from ttcjax.data import loader
from ttcjax.data.task import Example, Task
from ttcjax.text import tokenizer as tokenizer_lib

logger = logging.getLogger(__name__)

TOKENIZER_FILE = "tokenizer.model"
MANIFEST_FILE = "manifest.json"


def run(config: ExperimentConfig, workdir: epath.PathLike, out: epath.PathLike) -> dict[str, Any]:
    """Write records, `tokenizer.model` and `manifest.json` into `out`; running it again changes nothing.

    Args:
        config: Its `data` and `tokenizer` settings decide the result; `model.max_seq_len` only what is
            reported as too long.
        workdir: Folder of the earlier stages; this is the first and reads none.
        out: Folder of this stage.

    Returns:
        The manifest: example counts and content hashes of each split, size and fingerprint of the tokenizer, and
        per split the lengths in tokens of prompts (begin mark included) and solutions (end mark included).

    Raises:
        UserError: The data cannot be read or written, or no tokenizer can be trained on it.
    """
    del workdir
    out = epath.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    loader.prepare(config.data, out)
    task, splits = loader.load(config.data, out)
    named = {"train": list(splits.train), "valid": list(splits.valid), "test": list(splits.test)}
    texts = (task.prompt(example.question) + example.solution for example in named["train"])
    tokenizer = tokenizer_lib.train(texts, config.tokenizer)
    tokenizer.save(out / TOKENIZER_FILE)
    manifest = {
        "name": task.name,
        "config": config_hash(config.data, config.tokenizer),
        "counts": {name: len(examples) for name, examples in named.items()},
        "hashes": {name: _content_hash(examples) for name, examples in named.items()},
        "tokenizer": {"vocab_size": tokenizer.vocab_size, "fingerprint": tokenizer.fingerprint},
        "tokens": {
            name: _lengths(task, tokenizer, examples, config.model.max_seq_len) for name, examples in named.items()
        },
    }
    for name, lengths in manifest["tokens"].items():
        if lengths["over_limit"]:
            logger.warning(
                "%d of %d %s examples are longer than model.max_seq_len=%d tokens",
                lengths["over_limit"],
                len(named[name]),
                name,
                config.model.max_seq_len,
            )
    (out / MANIFEST_FILE).write_text(json.dumps(manifest, indent=2) + "\n")
    return manifest


def _content_hash(examples: Iterable[Example]) -> str:
    digest = hashlib.sha256()
    for example in examples:
        fields = [example.id, example.question, example.solution, example.answer, example.level, example.subject]
        digest.update(json.dumps(fields).encode())
    return digest.hexdigest()[:16]


def _lengths(task: Task, tokenizer: tokenizer_lib.Tokenizer, examples: Sequence[Example], limit: int) -> dict[str, Any]:
    prompts = tokenizer.encode_batch([task.prompt(example.question) for example in examples])
    solutions = tokenizer.encode_batch([example.solution for example in examples])
    prompt_lengths = np.array([len(row) for row in prompts], np.int64) + 1
    solution_lengths = np.array([len(row) for row in solutions], np.int64) + 1
    return {
        "prompt": _summary(prompt_lengths),
        "solution": _summary(solution_lengths),
        "over_limit": int((prompt_lengths + solution_lengths > limit).sum()),
    }


def _summary(lengths: np.ndarray) -> dict[str, float]:
    if not lengths.size:
        return {"mean": 0.0, "p95": 0.0, "max": 0}
    return {
        "mean": round(float(lengths.mean()), 2),
        "p95": float(np.percentile(lengths, 95)),
        "max": int(lengths.max()),
    }
