"""A sweep with tiny models: what it plans, and that parts and resumed runs find what one run finds."""

import dataclasses
import hashlib
import json
import logging
import pathlib
import shutil
import sys
import zlib

import numpy as np
import pyarrow.parquet as pq
import pytest
from etils import epath

from ttcjax import config as config_lib
from ttcjax.config import (
    ChainsConfig,
    DataConfig,
    ExperimentConfig,
    LargerConfig,
    ModelConfig,
    ORMConfig,
    RevisionConfig,
    SamplerConfig,
    SweepConfig,
)
from ttcjax.data import loader
from ttcjax.engine.engine import Engine, Solution
from ttcjax.eval.collect import bank, greedy, rescore, revision_chains, searches
from ttcjax.eval.records import sample_rows, trained
from ttcjax.eval.sections.spending import costs
from ttcjax.model import flops as compute
from ttcjax.pipeline import inputs, plan, stages, sweep
from ttcjax.pipeline import run as pipeline
from ttcjax.pipeline.stages import Stage
from ttcjax.runtime import locks, records
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import shard_path, write_shard
from ttcjax.runtime.shards import WHOLE, Part
from ttcjax.search.ops import run as run_strategy
from ttcjax.search.session import Outcome
from ttcjax.testing import folders
from ttcjax.text.steps import LINES
from ttcjax.train.collect import labels

QUESTIONS, LIMIT = 12, 192
PARAMS = {"policy": 1000, "prm": 700, "revision": 1100, "orm/history": 900, "orm/no_history": 500, "base_orm": 800}
PARAMS |= {"larger": 14_000}
MADE = ("bank", "rescore", "search", "chains", "greedy")
"""What a sweep of `CONFIG` makes; it has no larger model."""
CONFIG = ExperimentConfig(
    data=DataConfig(name="gsm8k", dir="unset", num_train=20, num_valid=5, num_test=QUESTIONS),
    model=ModelConfig(max_seq_len=LIMIT),
    sampler=SamplerConfig(max_tokens=24, max_step_tokens=6),
    revision=RevisionConfig(enabled=True, max_seq_len=1024),
    orm=ORMConfig(base=True, variants=("history", "no_history")),
    sweep=SweepConfig(
        samples=4,
        budgets=(1, 2, 4),
        # At 4 both widths are one search, and below 4 best-of-N.
        strategies=("majority", "beam:width=2", "beam:width=sqrt"),
        seeds=2,
        shard_questions=5,
    ),
    chains=ChainsConfig(budgets=(1, 2), answers=3, chains=2, refine=1, questions=10, shard_questions=5),
)
REPORT = """
import dataclasses, json
from ttcjax.eval.report import report
def run(config, inputs, sink):
    workdir = sink.folder.parent
    (workdir / "summary.json").write_text(json.dumps(sorted(p.name for p in workdir.iterdir() if p.is_dir())))
    return {"made": True}
STAGE = dataclasses.replace(report.STAGE, run=run)
"""


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    for split, count in (("train", 30), ("test", QUESTIONS)):
        lines = [
            {"question": f"What is {i} plus {len(split)}?", "answer": f"{i}\n#### {i + len(split)}"}
            for i in range(count)
        ]
        (folder / f"{split}.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, dir=str(folder)))


def draw(*key: object) -> np.random.Generator:
    return np.random.default_rng(zlib.crc32(repr(key).encode()))


class ScriptedEngine(Engine):
    """Samples and scores in no time, each from what decides it: the seed, the question, the sample, the round."""

    def __init__(self, tokenizer, sampler, verifier):
        self.tokenizer, self.sampler, self._verifier_name = tokenizer, sampler, verifier
        self.policy_config, self.judge = ModelConfig(max_seq_len=LIMIT), None
        self.on_batch = lambda count: None

    def solution(self, *key: object) -> Solution:
        rng = draw(*key)
        a, b = (int(x) for x in rng.integers(0, 30, 2))
        text = f"{a} plus {b}\n#### {a + b}"
        tokens = (*self.tokenizer.encode(text), self.tokenizer.eos_id)
        return Solution(tokens, text, bool(rng.random() < 0.8), -float(rng.random()), tokens_sampled=len(tokens))

    def sample(self, prompts, n, seed, *, first_sample=0, **_):
        self.on_batch(n * len(prompts))
        return [[self.solution(seed, p.id, first_sample + i) for i in range(n)] for p in prompts]

    def resume(self, prompts, begun, seed, **_):
        return [
            [self.solution(seed, p.id, r.sample, r.round) for r in row] for p, row in zip(prompts, begun, strict=True)
        ]

    def score(self, prompts, solutions, before=None):
        def scored(solution, shown):
            scores = tuple(float(x) for x in draw(self._verifier_name, solution.tokens, shown).random(2, np.float32))
            read = len(shown) + len(solution.tokens) + 1
            return dataclasses.replace(solution, step_scores=scores, tokens_verified=read)

        before = before or [[()] * len(group) for group in solutions]
        return [
            [scored(solution, shown) for solution, shown in zip(group, shows, strict=True)]
            for group, shows in zip(solutions, before, strict=True)
        ]


def scripted_search(strategy, session, seed):
    """A search whose rows draw some more than they keep; strategies that revise are themselves."""
    if strategy.revises:
        return run_strategy(strategy, session, seed)
    engine, prompts = session.engine, session.prompts
    found = [[engine.solution(strategy.name, seed, p.id, i) for i in range(strategy.rows())] for p in prompts]
    found = engine.score(prompts, found)
    drawn = [[dataclasses.replace(s, tokens_sampled=s.tokens_sampled + i) for i, s in enumerate(g)] for g in found]
    return [session.judged(Outcome(group, strategy.cost()), strategy) for group in drawn]


@pytest.fixture
def scripted(tiny, monkeypatch):
    """Put scripted engines in place of models."""

    def load_engine(workdir, sampler, *, policy="policy", verifier="prm", steps=LINES):
        return ScriptedEngine(tiny.tokenizer, sampler, verifier)

    for module in (bank, rescore, searches, revision_chains, greedy):
        monkeypatch.setattr(module, "load_engine", load_engine)
    monkeypatch.setattr(searches, "run_strategy", scripted_search)


@pytest.fixture
def models(config, scripted, tiny, tmp_path, monkeypatch):
    """Make a workdir function: of a config whose models are said to be trained, and nothing evaluated."""
    (tmp_path / "toy_report.py").write_text(REPORT)
    monkeypatch.syspath_prepend(str(tmp_path))
    toy = Stage("report", "toy_report", "the report")
    monkeypatch.setattr(stages, "STAGES", (*stages.STAGES[:-1], toy))

    def make(name: str, **changes) -> ExperimentConfig:
        workdir = tmp_path / name
        found = dataclasses.replace(config, workdir=str(workdir), **changes)
        loader.prepare(found.data, workdir / "data")
        lengths = {split: np.ones(1, np.int64) for split in loader.SPLITS}  # All fit.
        np.savez(workdir / "data" / loader.LENGTHS_FILE, **lengths)  # type: ignore[arg-type]
        tiny.tokenizer.save(epath.Path(workdir / "data" / "tokenizer.model"))
        given, found = found, inputs.resolved(found, epath.Path(workdir))
        for stage in stages.STAGES:
            if stage.name not in (*sweep.NAMES, "report") and stage.wanted(found):
                sizes = {"params": PARAMS.get(stage.name, 1), "tokens_seen": 10}
                if stage.name == "orm":
                    sizes = {v: {"params": PARAMS[f"orm/{v}"], "tokens_seen": 10} for v in found.orm.variants}
                    sizes |= {"selection": {"chosen": "no_history"}}
                for name in set(stage.writes) & {"best"}:
                    (workdir / stage.name / name).mkdir(parents=True)
                fingerprint, settings = stages.fingerprint(stage, found), config_lib.to_dict(found)
                folders.complete(workdir / stage.name, fingerprint=fingerprint, config=settings, result=sizes)
        return given

    yield make
    sys.modules.pop("toy_report", None)


def files(config):
    """Every row but for its time, by file."""
    found = {}
    for path in sorted(p for name in sweep.NAMES for p in pathlib.Path(config.workdir).glob(f"{name}*/*.parquet")):
        table = pq.read_table(path)
        kept = [name for name in table.column_names if name != "seconds"]
        found[str(path.relative_to(config.workdir))] = table.select(kept).to_pylist()
    return found


def parts(config, count, order=None):
    """Run the parts one after another, and return the records that each was left with."""
    return [sweep.run_part(config, Part(i, count)) for i in order or range(1, count + 1)]


@pytest.fixture
def whole(models):
    """The config of a sweep in one process, run, and its rows."""
    config = models("whole")
    assert list(sweep.run(config)) == [*MADE, "report"]
    return config, files(config)


def test_every_shard_is_listed_with_its_hash(whole):
    config, found = whole
    workdir = pathlib.Path(config.workdir)
    told = {}
    for name in MADE:
        record = records.read_complete(workdir / name)
        assert record is not None
        settings = inputs.resolved(config, epath.Path(workdir))
        assert record["fingerprint"] == stages.fingerprint(stages.get_stage(name), settings)
        told |= {f"{name}/{path}": identity for path, identity in record["files"].items()}
    assert set(told) == set(found)
    for path, identity in told.items():
        content = (workdir / path).read_bytes()
        expected = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
        assert identity == {**expected, "changed": (workdir / path).stat().st_ctime_ns}


def test_parts_find_what_one_process_finds(models, whole):
    _, expected = whole
    assert len(expected) == 3 + 3 + 3 * 2 * 3 + 2 + 1, (
        "shards of bank, rescore, three names and budgets with two seeds, chains, greedy"
    )
    config = models("parts")
    first = parts(config, 3, order=(2, 3, 1))
    assert [list(records) for records in first] == [[], [], ["bank", "search", "chains", "greedy"]]
    assert sweep.waits_for(config) == ["rescore (2 of 3 shards missing)"], "only the last part saw a complete bank"
    again = parts(config, 3)
    assert [set(records) for records in again][-1] == {*MADE, "report"}
    assert files(config) == expected
    assert json.loads((pathlib.Path(config.workdir) / "summary.json").read_text())


def test_greedy_answers_are_part_of_a_sweep(models):
    larger = LargerConfig(True, ModelConfig(max_seq_len=LIMIT))
    one, two = models("one", larger=larger), models("two", larger=larger)
    planned = [cell for cell in sweep.plan(one).cells if cell.stage == "greedy"]
    assert [cell.answers for cell in planned] == [((f"greedy:{model}", 1),) for model in greedy.MODELS]
    for cell, model in zip(planned, greedy.MODELS, strict=True):
        assert cell.whole.policy_flops == pytest.approx(2 * PARAMS[model] * cell.whole.policy_tokens)
        assert (cell.whole.generations, cell.whole.verifier_tokens) == (QUESTIONS, 0)
    assert list(sweep.run(one)) == [*MADE, "report"]
    parts(two, 2)
    assert "report" in parts(two, 2)[-1]
    assert files(two) == files(one)
    assert len([name for name in files(one) if name.startswith("greedy/")]) == 2


def test_a_limit_asks_the_first_questions_with_the_same_models_and_the_whole_sweep_is_kept(models, whole):
    config, expected = whole
    first = dataclasses.replace(config, sweep=dataclasses.replace(config.sweep, limit=4))
    planned = sweep.plan(first)
    assert {cell.questions for cell in planned.cells} == {4}
    assert list(sweep.run(first)) == [*MADE, "report"]
    asked = {row["question"] for name, rows in files(first).items() if ".old-" not in name for row in rows}
    assert asked == {f"gsm8k-test-{i:05d}" for i in range(1, 5)}
    few = [row for name, rows in files(first).items() if name.startswith("bank/") for row in rows]
    of_all = [row for name, rows in expected.items() if name.startswith("bank/") for row in rows]
    assert few == [row for row in of_all if row["question"] in asked], "a limit changes no sample"
    assert not list(pathlib.Path(config.workdir).glob("policy.old-*")), "the models were made again"
    sweep.run(config)
    assert {name: rows for name, rows in files(config).items() if ".old-" not in name} == expected


def test_samples_of_another_bank_are_judged_anew(models, monkeypatch):
    one = models("one")
    folder = pathlib.Path(one.workdir) / "bank"
    folders.run_stage(bank.STAGE, one, one.workdir, folder)
    folders.complete(folder)
    taken = dataclasses.replace(one.sweep, samples=3, budgets=(1, 2), samples_from=str(folder))
    other = models("other", sweep=taken)

    def load_engine(workdir, sampler, *, policy="policy", verifier="prm", steps=LINES):
        engine = ScriptedEngine(one_engine.tokenizer, sampler, "another verifier")
        engine.sample = None  # type: ignore[assignment]
        return engine

    one_engine = bank.load_engine(one.workdir, one.sampler)
    monkeypatch.setattr(bank, "load_engine", load_engine)
    found = folders.run_stage(bank.STAGE, other, other.workdir, epath.Path(other.workdir) / "bank")
    folders.complete(epath.Path(other.workdir) / "bank")
    assert (found["solutions"], found["sampled"]) == (3 * QUESTIONS, 0)
    before, after = (
        {(r["question"], r["sample"]): r for r in sample_rows.read_folder(pathlib.Path(c.workdir) / "bank").to_pylist()}
        for c in (one, other)
    )
    assert set(after) == {key for key in before if key[1] < 3}
    for key, row in after.items():
        same = ("text", "finished", "tokens", "logprob", "answer", "correct", "gold", "seed")
        assert {name: row[name] for name in same} == {name: before[key][name] for name in same}
        assert row["step_scores"] != before[key]["step_scores"]


def test_a_source_of_samples_is_looked_at_before_anything_is_moved(models, whole):
    one, _ = whole
    workdir = pathlib.Path(one.workdir)
    before = sorted(workdir.rglob("*"))
    for source, message in (
        (workdir / "labels", "must name the folder of a finished bank"),
        (workdir / "nowhere", "must name the folder of a finished bank"),
        (workdir / "bank", "names this run's own bank"),
    ):
        wrong = dataclasses.replace(one, sweep=dataclasses.replace(one.sweep, samples_from=str(source)))
        for run in (sweep.run, sweep.plan, pipeline.run, lambda c: sweep.run_part(c, Part(1, 2))):
            with pytest.raises(UserError, match=message):
                run(wrong)
    assert sorted(workdir.rglob("*")) == before
    other = models("other", sweep=dataclasses.replace(one.sweep, samples_from=str(workdir / "bank")))
    [cell] = [cell for cell in sweep.plan(other).cells if cell.stage == "bank"]
    assert (cell.whole.generations, cell.whole.policy_tokens) == (0, 0)
    assert cell.whole.verifier_tokens > 0


@pytest.mark.parametrize("damage", ["gone", "cut"])
@pytest.mark.parametrize("run", [sweep.run, lambda c: sweep.run_part(c, Part(1, 1))], ids=["sweep", "part"])
def test_a_complete_stage_that_lost_a_shard_makes_that_one_again(whole, monkeypatch, damage, run):
    config, expected = whole
    lost = pathlib.Path(config.workdir) / "bank" / "shard-00001.parquet"
    content = lost.read_bytes()
    lost.unlink()
    if damage == "cut":
        lost.write_bytes(content[:50])
    assert sweep.plan(config).left.generations > 0
    made = []
    write = bank.write_shard
    monkeypatch.setattr(bank, "write_shard", lambda path, *rest: (made.append(path.name), write(path, *rest)))
    assert "report" in run(config)
    assert made == ["shard-00001.parquet"], "the others were whole"
    assert files(config) == expected


def test_samples_that_are_not_there_are_said_so(models):
    one = models("one")
    folder = epath.Path(one.workdir) / "bank"
    folders.run_stage(bank.STAGE, one, one.workdir, folder)
    folders.complete(folder)
    other = models("other", sweep=dataclasses.replace(one.sweep, samples_from=str(folder), samples=5))
    with pytest.raises(UserError, match=r"has 4 samples of gsm8k-test-00001 at temperature 1, and 5 are wanted: lower"):
        folders.run_stage(bank.STAGE, other, other.workdir, epath.Path(other.workdir) / "bank")


def test_every_stage_begins_with_what_is_left_of_the_whole_sweep(models, caplog):
    config = models("told")
    with caplog.at_level(logging.INFO, "ttcjax.pipeline.sweep"):
        sweep.run(config)
    told = [line for line in caplog.messages if line.startswith("sweep: ")]
    assert [line.split()[1] for line in told] == ["bank", "rescore", "search", "chains", "greedy"]
    # 4 samples of 12 questions; with two seeds, searches of 2 and 4 generations; 8 answers in chains of 10.
    assert told[0] == (
        "sweep: bank is next, 3 of 3 shards missing; in all 21 shards, 284 generations; time not known yet"
    )
    assert "in all 18 shards, 236 generations; about" in told[1]
    assert told[1].endswith("left without search, chains, greedy")
    assert told[3].startswith("sweep: chains is next, 2 of 2 shards missing; in all 3 shards, 92 generations;")
    caplog.clear()
    with caplog.at_level(logging.INFO, "ttcjax.pipeline.sweep"):
        sweep.run(config)
    assert not [line for line in caplog.messages if line.startswith("sweep: ")], "nothing is left to tell of"


def test_a_part_that_fails_before_it_wrote_anything_leaves_nothing(models, monkeypatch):
    config = models("failed")
    before = sorted(path.name for path in pathlib.Path(config.workdir).rglob("*"))

    def fail(*_, **__):
        raise UserError("not enough memory for one row")

    monkeypatch.setattr(bank, "load_engine", fail)
    with pytest.raises(UserError, match="one row"):
        sweep.run_part(config, Part(1, 2))
    after = sorted(path.name for path in pathlib.Path(config.workdir).rglob("*"))
    assert [name for name in after if name not in before] == [locks.LOCK]


def test_what_parts_measured_is_added_up(models, whole):
    one = {n: records.read(epath.Path(whole[0].workdir) / n) for n in MADE}
    config = models("parts")
    parts(config, 2)
    parts(config, 2)
    for name, alone in one.items():
        record = records.read(epath.Path(config.workdir) / name)
        assert record is not None
        assert alone is not None
        shares = records.parts(epath.Path(config.workdir) / name)
        assert len(shares) == (1 if name == "greedy" else 2), "greedy answers are one shard a model"
        assert record["seconds"] == pytest.approx(sum(share["seconds"] for share in shares))
        timing = ("sampling_seconds", "seconds_per_question")
        kept = [{k: v for k, v in r["result"].items() if k not in timing} for r in (record, alone)]
        assert kept[0] == kept[1], "also how many solutions were sampled"
        if name == "search":
            assert set(record["result"]["seconds_per_question"]) == set(alone["result"]["seconds_per_question"])


def test_a_plain_sweep_makes_what_lost_parts_left(models, whole):
    config = models("lost")
    parts(config, 4, order=(3,))
    made = files(config)
    assert 0 < len(made) < len(whole[1])
    found = sweep.run(config)
    assert found["report"]["result"] == {"made": True}
    assert found["bank"]["attempts"] == 2
    assert files(config) == whole[1]
    left = [p for name in MADE for p in records.part_paths(epath.Path(config.workdir) / name)]
    assert not left, "their seconds are in the records now"


def test_a_stage_whose_completion_was_killed_is_completed_without_work(models, monkeypatch):
    config = models("killed")
    sweep.run(config)
    workdir = epath.Path(config.workdir)
    record = records.read(workdir / "bank")
    assert record is not None
    (workdir / "bank").rename(workdir / "bank.partial")
    records.write(workdir / "bank", record | {"complete": False, "parts": True})
    shutil.rmtree(workdir / "report")
    monkeypatch.setattr(bank, "write_shard", lambda *_: pytest.fail("a shard that was whole is made again"))
    assert set(sweep.run_part(config, Part(2, 2))) == {*MADE, "report"}


def test_without_locks_parts_make_shards_and_a_plain_sweep_completes_the_stages(models, whole, monkeypatch):
    """As on object stores, where two parts could rename a folder at once."""
    for module in (sweep, locks):
        monkeypatch.setattr(module, "is_remote", lambda workdir: True)
    config = models("remote")
    assert parts(config, 2) == [{}, {}]
    workdir = pathlib.Path(config.workdir)
    assert not list(workdir.glob(".lock*"))
    assert len(files(config)) == len(whole[1]) - 3, "all but those of rescore, which reads a complete bank"
    monkeypatch.setattr(bank, "write_shard", lambda *_: pytest.fail("a shard that was whole is made again"))
    assert list(sweep.run(config)) == [*MADE, "report"]
    assert files(config) == whole[1]


def test_a_damaged_shard_is_planned_and_made_again(models, whole):
    config, expected = whole
    workdir = epath.Path(config.workdir)
    record = records.read(workdir / "search")
    assert record is not None
    (workdir / "search").rename(workdir / "search.partial")
    records.write(workdir / "search", record | {"complete": False})
    path = shard_path(workdir / "search.partial", 1, "beam-width-2_n-4_seed-3")
    path.write_bytes(path.read_bytes()[:50])
    left = [cell for cell in sweep.plan(config).cells if cell.shards_left]
    assert [(cell.answers, cell.shards_left) for cell in left] == [((("beam:width=2", 4), ("beam:width=sqrt", 4)), 1)]
    sweep.run(config)
    assert files(config) == expected


def test_models_that_are_missing_are_named_with_their_commands(models):
    config = models("none")
    shutil.rmtree(pathlib.Path(config.workdir) / "prm")
    shutil.rmtree(pathlib.Path(config.workdir) / "orm")
    for run in (sweep.plan, sweep.run, lambda c, command: sweep.run_part(c, Part(1, 2), command=command)):
        with pytest.raises(UserError, match="needs prm, which is missing, orm, which is missing, in ") as caught:
            run(config, command="x.py")
        assert "run `ttcjax prm x.py && ttcjax orm x.py` first" in str(caught.value)


# ---- the plan


def test_a_plan_writes_nothing(models):
    config = models("dry")
    before = sorted(pathlib.Path(config.workdir).rglob("*"))
    sweep.plan(config)
    assert sorted(pathlib.Path(config.workdir).rglob("*")) == before


def test_before_anything_is_sampled_tokens_are_bounded_by_the_limit(models, tiny):
    config = models("new")
    found = sweep.plan(config)
    assert all(cell.tokens_from == plan.BOUND for cell in found.cells)
    assert found.unknown == MADE
    assert found.left == found.whole
    assert found.left.seconds is None
    texts = [f"What is {i} plus 4?\n" for i in range(QUESTIONS)]
    prompts = sum(1 + len(ids) for ids in tiny.tokenizer.encode_batch(texts))
    [cell] = [cell for cell in found.cells if cell.stage == "bank"]
    assert cell.whole.generations == 4 * QUESTIONS
    assert cell.whole.policy_tokens == pytest.approx(prompts + 4 * QUESTIONS * 24)
    assert cell.whole.policy_flops == pytest.approx(2 * 1000 * cell.whole.policy_tokens)
    assert cell.whole.verifier_flops == pytest.approx(2 * 700 * cell.whole.verifier_tokens)
    text = "\n".join(plan.lines(found, sweep.probe(found, "x.py")))
    assert "an upper bound" in text
    unknown = "not known yet for bank, rescore, search, chains, greedy"
    assert f"{unknown}; `ttcjax sweep x.py --part 1/12` runs one shard" in text


def test_labels_say_how_long_solutions_are_before_the_bank_is_there(models, tiny):
    config = models("labelled")
    solutions = ["1 + 2 = 3\nAnswer: 3", "Answer: 3"]
    made = [
        {"question": "q", "sample": i, "prompt": "", "solution": text, "step_values": [1.0], "correct": True}
        for i, text in enumerate(solutions)
    ]
    write_shard(shard_path(pathlib.Path(config.workdir) / "labels", 0), made, labels.SCHEMA)
    found = sweep.plan(config)
    long = 1 + sum(map(len, tiny.tokenizer.encode_batch(solutions))) / 2
    [cell] = [cell for cell in found.cells if cell.stage == "bank"]
    assert cell.tokens_from == "labels"
    prompts = trained.prompt_tokens(config.questions, epath.Path(config.workdir) / "data")
    assert cell.whole.policy_tokens == pytest.approx(sum(prompts.values()) + 4 * QUESTIONS * long)


def test_a_finished_sweep_plans_what_it_took(models, whole):
    """Against the ledger of the report, which counts the same rows question by question."""
    config, _ = whole
    workdir = epath.Path(config.workdir)
    found = sweep.plan(config)
    assert found.left == plan.Amount()
    assert plan.lines(found, "")[-1] == "nothing is left to compute"
    tables = {name: sample_rows.read_folder(workdir / name) for name in ("bank", "search")}
    prompts = trained.prompt_tokens(config.questions, workdir / "data")
    models_ = {name: trained.Trained(params=size, tokens_seen=1) for name, size in PARAMS.items()}
    temperature: float = config.sampler.temperature
    at = {name: dict.fromkeys(config.sweep.budgets, temperature) for name in config.sweep.strategies}
    counted = costs.of_strategies(config.sweep, tables["bank"], tables["search"], prompts, models_, at)
    for cell in found.cells:
        if cell.stage == "search":
            for name, n in cell.answers:
                expected = counted[name][n]
                one = 1 / (QUESTIONS * cell.seeds)
                assert cell.whole.generations * one == expected.generations == n
                tokens = expected.policy_tokens + expected.prompt_tokens
                assert cell.whole.policy_tokens * one == pytest.approx(tokens)
                flops = (cell.whole.policy_flops + cell.whole.verifier_flops) * one
                assert flops == pytest.approx(expected.flops)
    [cell] = [cell for cell in found.cells if cell.stage == "bank"]
    shares = [part["seconds"].to_numpy() for part in (tables["bank"].slice(k, 20) for k in (0, 20, 40))]
    # Four rows a question; of three shards the middle one, as the first one may have compiled.
    assert cell.whole.seconds == pytest.approx(QUESTIONS * 4 * float(np.median([share[0] for share in shares])))


def test_the_verifier_that_validation_chose_decides_what_is_kept(whole):
    config, _ = whole
    table = revision_chains.read(epath.Path(config.workdir) / "chains").to_pylist()
    refined = [row for row in table if row["strategy"] == "refine"]
    assert refined
    assert all([score["verifier"] for score in row["scores"]] == ["no_history"] for row in refined)


def test_chains_are_planned_with_what_is_in_view(models, whole):
    config, _ = whole
    workdir = epath.Path(config.workdir)
    [cell] = [cell for cell in sweep.plan(config).cells if cell.stage == "chains"]
    table = revision_chains.read(workdir / "chains").to_pylist()
    assert cell.whole.generations == len(table)
    prompts = trained.prompt_tokens(config.questions, workdir / "data")
    asked = [row["question"] for row in table]
    tokens = sum(row["tokens"] for row in table)
    view = sum(row["shown"] for row in table) * tokens / len(table)
    prompt = sum(prompts.values()) / len(prompts)
    assert cell.whole.policy_tokens == pytest.approx(len(set(asked)) * prompt + tokens + view)
    read = sum(row["verifier_tokens"] for row in table) + 3 * len(set(asked)) * prompt
    assert cell.whole.verifier_tokens == pytest.approx(read)
    assert cell.whole.policy_flops == pytest.approx(compute.inference(PARAMS["revision"], cell.whole.policy_tokens))
    assert cell.whole.verifier_flops == pytest.approx(2 * 700 * cell.whole.verifier_tokens), "the mean of three"


def test_what_is_left_shrinks_by_shards_and_parts_share_it(models):
    config = models("some")
    parts(config, 5, order=(1,))
    found = sweep.plan(config)
    assert found.unknown == (), "one part has run a shard of every stage, and its bank shard tells how long scoring is"
    shares = [sweep.plan(config, Part(i, 5)) for i in range(1, 6)]
    assert shares[0].left.generations == 0
    assert sum(share.left.generations for share in shares) == found.left.generations
    for stage in ("bank", "search", "chains"):
        cells = [cell for cell in found.cells if cell.stage == stage]
        assert 0 < sum(cell.shards_left for cell in cells) < sum(cell.shards for cell in cells)
    assert found.part == WHOLE
    assert json.loads(json.dumps(plan.as_json(found)))["left"]["generations"] == found.left.generations


def test_the_named_command_makes_the_time_known(models):
    config = models("probe")
    found = sweep.plan(config)
    command = sweep.probe(found, "x.py")
    sweep.run_part(config, Part.parse(command.rpartition(" ")[2]))
    assert {stage: len([f for f in files(config) if f.startswith(stage)]) for stage in ("bank", "chains")} == {
        "bank": 1,
        "chains": 1,
    }
    assert len([f for f in files(config) if f.startswith("search")]) == 2, "one search, under its two names"
    known = sweep.plan(config)
    assert set(known.unknown) <= {"rescore"}
    assert known.known_seconds > 0
