"""The chains stage: the revision model's chains on the test questions, scored by every verifier, written once.

Every split of a budget into chains and answers is cut from them afterwards: the head of a chain is a valid shorter
chain, and chains are independent of each other.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
from etils import epath

from ttcjax.config import ChainsConfig, ExperimentConfig, InView, Questions, SamplerConfig
from ttcjax.data import loader
from ttcjax.data.task import Example, Task
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import amounts
from ttcjax.eval.collect.amounts import Seen, Spent, Units
from ttcjax.eval.collect.swap import partners, swapped
from ttcjax.eval.records import verifier_scores
from ttcjax.runtime import shards as shards_lib
from ttcjax.runtime.parquet import read_folder, write_shard
from ttcjax.runtime.progress import progress
from ttcjax.runtime.shards import Shard
from ttcjax.runtime.stage import Inputs, Sink, Stage, product
from ttcjax.search import revision_verifiers
from ttcjax.search.chains import Chains, read_answer
from ttcjax.search.revision_verifiers import Judges
from ttcjax.search.strategies.refine import Refine

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
        verifier_scores.SCORES,
        pa.field("tokens", pa.int32(), nullable=False, metadata={"about": "decoded"}),
        pa.field("verifier_tokens", pa.int32(), nullable=False, metadata={"about": "read by all verifiers"}),
        pa.field("logprob", pa.float32(), nullable=False, metadata={"about": "in nats"}),
        pa.field("seconds", pa.float32(), nullable=False, metadata={"about": "wall time of this row's share"}),
    ]
)
"""Columns of the shards, a row an answer."""


@dataclass(frozen=True)
class Settings:
    """Settings of the chains stage; chains have the sampler's temperature."""

    questions: Questions
    sampler: SamplerConfig
    view: InView
    judges: Judges
    chains: ChainsConfig

    @classmethod
    def of(cls, config: ExperimentConfig) -> Settings:
        """Return what the stage sees of an experiment."""
        sampler, view = config.sampler.of_solutions(), config.revision.view
        return cls(config.test_questions, sampler, view, Judges.of(config), config.chains)

    @property
    def tries(self) -> int:
        """Answers of `refine`, the first one included."""
        return (1 + self.chains.refine) * bool(self.chains.refine)


def shards(settings: Settings, inputs: Inputs) -> list[Shard]:
    """Return the stage's shards."""
    _, splits = loader.askable(settings.questions, inputs["data"])
    return shards_of(settings, len(splits.test))


def shards_of(settings: Settings, questions: int) -> list[Shard]:
    own = settings.chains
    return shards_lib.cut(
        min(questions, own.questions or questions),
        own.shard_questions,
        strategy="revise",
        answers=(("revise", 0), *[("refine", 0)] * bool(own.refine), *[("swap", 0)] * bool(own.swap)),
        seed=own.seed,
        generations=sum(own.lengths) + settings.tries + max(0, own.swap - 1),
    )


def spends(
    settings: Settings, answers: tuple[tuple[str, int], ...], generations: int, own: Sequence[Seen], units: Units
) -> Spent:
    """Return what a question takes."""
    del answers
    chains, most = settings.chains, settings.view.max_answers
    variants = [name for name in settings.judges.names if name != "prm"]
    again = units.prompt * settings.view.restate
    if own:
        written, rows = amounts.mean(own, "tokens"), amounts.mean(own, "rows")
        view = amounts.mean(own, "shown") * written / rows + again * amounts.mean(own, "revised")
        read = amounts.mean(own, "verifier_tokens")
    else:
        in_view = [min(k, most) for length in chains.lengths for k in range(length)]
        kept = [min(k, most) for k in range(settings.tries)]
        written = generations * units.token
        swapped = [min(k, most) for k in range(1, chains.swap)]  # Read by nobody.
        shown = [k * units.token + again * bool(k) for k in (*in_view, *kept, *swapped)]
        view = sum(shown)
        # Every verifier reads the chains, one of them what `refine` tries too; with history, what was in view.
        read = len(in_view) * units.token * (len(variants) + 1) + len(kept) * units.token
        read += sum(shown[: len(in_view)]) * ("history" in variants)
        selecting = settings.judges.chosen(chains.verifier, units.inputs.get("orm"))
        read += sum(shown[len(in_view) : len(in_view) + len(kept)]) * (selecting == "history")
    return Spent(
        units.prompt + view + written,
        units.prompt * (len(variants) + 1) + read,
        generations,
        writer="revision",
        readers=tuple(map(revision_verifiers.stage_of, settings.judges.names)),
    )


def _work(settings: Settings) -> str:
    own, questions = settings.chains, settings.questions.num_test
    answers = sum(own.lengths) + own.swap + settings.tries
    return f"{product(min(own.questions or questions, questions), answers)} answers at most"


def run(settings: Settings, inputs: Inputs, sink: Sink) -> dict[str, Any]:
    """Sample and score the chains of the test questions; finished shards are kept.

    Returns:
        `questions`, `answers`, and `shards`.
    """
    task, splits = loader.askable(settings.questions, inputs["data"])
    own, judges = settings.chains, settings.judges
    examples = splits.test[: own.questions or len(splits.test)]
    every = shards_of(settings, len(examples))
    mine = sink.part.of(every)
    todo = shards_lib.missing(mine, sink.folder, SCHEMA)
    names = judges.names
    selecting = judges.chosen(own.verifier, inputs.get("orm"))
    engines = {
        name: load_engine(
            inputs, settings.sampler, policy="revision", verifier=revision_verifiers.stage_of(name), steps=task.steps
        )
        for name in names
    }
    lengths = own.lengths
    per_question = sum(lengths) * (1 + len(names)) + 2 * (1 + own.refine) * bool(own.refine)
    per_question += max(0, own.swap - 1)
    whole, left = (sum(s.questions for s in some) * per_question for some in (mine, todo))
    with progress(whole, "chains: answers sampled and scored") as bar:
        bar.skip(whole - left)
        for engine in engines.values():
            engine.on_batch = bar.update
        for piece in todo:
            shard = piece.take(examples)
            begin = time.perf_counter()
            prompts = [engines[names[0]].encode_prompt(e.id, task.prompt(e.question)) for e in shard]
            revisers = {name: judges.reviser(engine, prompts, settings.view, name) for name, engine in engines.items()}
            chains = revisers[names[0]].sample(lengths, own.seed)
            found = {"revise": {name: revisers[name].score(chains) for name in names}}
            if own.refine:
                refined = Refine(own.refine).chains(
                    revisers[selecting], own.seed, lambda a: read_answer(task, a) is not None
                )
                found["refine"] = {selecting: refined}
            if own.swap:
                control = swapped(revisers[names[0]], chains, partners(shard), own.swap, own.seed)
                found["swap"] = {names[0]: control}
            seconds = (time.perf_counter() - begin) / (len(shard) * piece.generations)
            table = [
                row
                for strategy, scored in found.items()
                for row in result_rows(task, shard, scored, strategy, own.seed, seconds)
            ]
            for path in piece.paths(sink.folder):
                write_shard(path, table, SCHEMA)
    sink.lists(*shards_lib.names(every))
    return {"questions": len(examples), "answers": len(examples) * sum(lengths), "shards": len(every)}


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
                scores = {name: judged.solution.step_scores for name, judged in at.items() if judged.score is not None}
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
                        "scores": verifier_scores.nested(scores),
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


STAGE = Stage(
    Settings.of,
    run,
    needs=("data", "prm", "revision", "orm"),
    switch=("revision.enabled",),
    version=2,
    schema=SCHEMA,
    shards=shards,
    work=_work,
    spends=spends,
)
