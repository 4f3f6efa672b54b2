"""The chains stage: the revision model's chains on the test questions, scored by every verifier, written once.

Every split of a budget into chains and answers is cut from them afterwards: the head of a chain is a valid shorter
chain, and chains are independent of each other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa
from etils import epath

from ttcjax.config import ExperimentConfig
from ttcjax.data import loader
from ttcjax.data.task import Example, Task
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import shards as shards_lib
from ttcjax.eval.collect.shards import WHOLE, Part, Shard
from ttcjax.eval.collect.swap import partners, swapped
from ttcjax.runtime.parquet import read_folder, write_shard
from ttcjax.runtime.progress import progress
from ttcjax.search import revision_verifiers
from ttcjax.search.chains import Chains, read_answer
from ttcjax.search.strategies.refine import Refine

VERIFIERS = ("history", "no_history", "prm")
"""ORMs of the revision model's answers with and without the answers before in view, and the PRM of the base samples."""

SCHEMA = pa.schema(
    [
        pa.field("question", pa.string(), nullable=False, metadata={"about": "id of the question"}),
        pa.field("level", pa.int8(), nullable=False, metadata={"about": "1 (easiest) to 5, 0 unknown"}),
        pa.field("gold", pa.string(), nullable=False, metadata={"about": "reference answer"}),
        pa.field("strategy", pa.string(), nullable=False, metadata={"about": "`revise`, `refine` or `swap`"}),
        pa.field("chain", pa.int32(), nullable=False),
        pa.field("place", pa.int32(), nullable=False, metadata={"about": "of the answer in its chain, from 0"}),
        pa.field("seed", pa.int32(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("answer", pa.string(), metadata={"about": "canonical final answer; null if unparsable"}),
        pa.field("correct", pa.bool_(), nullable=False),
        pa.field("finished", pa.bool_(), nullable=False, metadata={"about": "ended by itself"}),
        pa.field("shown", pa.int32(), nullable=False, metadata={"about": "answers in view"}),
        pa.field("kept", pa.bool_(), metadata={"about": "by `refine`: took the place of the answer before"}),
        *(
            pa.field(f"score_{name}", pa.float32(), metadata={"about": "in [0, 1]; null where not scored"})
            for name in VERIFIERS
        ),
        pa.field("tokens", pa.int32(), nullable=False, metadata={"about": "decoded"}),
        pa.field("verifier_tokens", pa.int32(), nullable=False, metadata={"about": "read by all verifiers"}),
        pa.field("logprob", pa.float32(), nullable=False, metadata={"about": "in nats"}),
        pa.field("seconds", pa.float32(), nullable=False, metadata={"about": "wall time of this row's share"}),
    ]
)
"""Columns of the shards, a row an answer."""


def shards(config: ExperimentConfig, questions: int, chosen: Any = None) -> list[Shard]:
    """Return the stage's shards, of so many test questions."""
    del chosen  # Chains have the sampler's temperature.
    settings = config.chains
    return shards_lib.cut(
        min(questions, settings.questions or questions),
        settings.shard_questions,
        strategy="revise",
        answers=(("revise", 0), *[("refine", 0)] * bool(settings.refine), *[("swap", 0)] * bool(settings.swap)),
        seed=settings.seed,
        generations=sum(settings.lengths) + (1 + settings.refine) * bool(settings.refine) + max(0, settings.swap - 1),
    )


def run(config: ExperimentConfig, workdir: epath.Path, out: epath.Path, part: Part = WHOLE) -> dict[str, Any]:
    """Sample and score the chains of the test questions; finished shards are kept.

    Args:
        config: The experiment.
        workdir: Its folder.
        out: The folder of this stage.
        part: Which of the shards are this process's.

    Returns:
        `questions`, `answers`, `shards`, `files`.
    """
    task, splits = loader.askable(config, workdir)
    settings = config.chains
    examples = splits.test[: settings.questions or len(splits.test)]
    every = shards(config, len(examples))
    mine = part.of(every)
    todo = shards_lib.missing(mine, out, SCHEMA)
    names = revision_verifiers.candidates(config)
    selecting = revision_verifiers.chosen(config, workdir)
    engines = {
        name: load_engine(
            workdir, config.sampler, policy="revision", verifier=revision_verifiers.stage_of(name), steps=task.steps
        )
        for name in names
    }
    lengths = settings.lengths
    per_question = sum(lengths) * (1 + len(names)) + 2 * (1 + settings.refine) * bool(settings.refine)
    per_question += max(0, settings.swap - 1)
    whole, left = (sum(s.questions for s in some) * per_question for some in (mine, todo))
    with progress(whole, "chains: answers sampled and scored") as bar:
        bar.skip(whole - left)
        for engine in engines.values():
            engine.on_batch = bar.update
        for piece in todo:
            shard = piece.take(examples)
            begin = time.perf_counter()
            prompts = [engines[names[0]].encode_prompt(e.id, task.prompt(e.question)) for e in shard]
            revisers = {
                name: revision_verifiers.reviser(engine, prompts, config, name) for name, engine in engines.items()
            }
            chains = revisers[names[0]].sample(lengths, settings.seed)
            found = {"revise": {name: revisers[name].score(chains) for name in names}}
            if settings.refine:
                refined = Refine(settings.refine).chains(
                    revisers[selecting], settings.seed, lambda a: read_answer(task, a) is not None
                )
                found["refine"] = {selecting: refined}
            if settings.swap:
                control = swapped(revisers[names[0]], chains, partners(shard), settings.swap, settings.seed)
                found["swap"] = {names[0]: control}
            seconds = (time.perf_counter() - begin) / (len(shard) * piece.generations)
            table = [
                row
                for strategy, scored in found.items()
                for row in result_rows(task, shard, scored, strategy, settings.seed, seconds)
            ]
            for path in piece.paths(out):
                write_shard(path, table, SCHEMA)
    return {
        "questions": len(examples),
        "answers": len(examples) * sum(lengths),
        "shards": len(every),
        "files": shards_lib.names(every),
    }


def result_rows(
    task: Task,
    examples: Sequence[Example],
    scored: Mapping[str, Chains],
    strategy: str,
    seed: int,
    seconds: float,
) -> list[dict[str, Any]]:
    """Return the rows of `SCHEMA` for the chains of some questions.

    Args:
        task: Reads and grades the answers.
        examples: The questions.
        scored: Their chains, once with the scores of each verifier.
        strategy: What made the chains.
        seed: What they were sampled with.
        seconds: A row's share of the time.
    """
    table = []
    for q, (example, group) in enumerate(zip(examples, next(iter(scored.values())), strict=True)):
        for c, chain in enumerate(group):
            for place, reply in enumerate(chain):
                answer = read_answer(task, reply)
                at = {name: found[q][c][place] for name, found in scored.items()}
                scores: dict[str, float | None] = {f"score_{name}": None for name in VERIFIERS}
                scores |= {f"score_{name}": judged.score for name, judged in at.items()}
                table.append(
                    {
                        "question": example.id,
                        "level": example.level,
                        "gold": example.answer,
                        "strategy": strategy,
                        "chain": c,
                        "place": place,
                        "seed": seed,
                        "text": reply.text,
                        "answer": answer,
                        "correct": task.grade(answer, example.answer),
                        "finished": reply.solution.finished,
                        "shown": reply.shown,
                        "kept": reply.kept,
                        **scores,
                        "tokens": reply.solution.tokens_sampled,
                        "verifier_tokens": sum(judged.solution.tokens_verified for judged in at.values()),
                        "logprob": reply.solution.logprob,
                        "seconds": seconds,
                    }
                )
    return table


def read(folder: epath.Path) -> pa.Table:
    """Return the rows of a complete stage.

    Raises:
        UserError: There are none, a file is missing, or one is damaged.
    """
    return read_folder(folder, SCHEMA)
