"""The policy and PRM stages on questions in GSM8K's form, small enough to train in seconds."""

import dataclasses
import functools
import json
import shutil
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath

from tests import rounding
from ttcjax.config import (
    DataConfig,
    ExperimentConfig,
    LargerConfig,
    ModelConfig,
    OptimizerConfig,
    ORMConfig,
    PRMConfig,
    RevisionConfig,
    SamplerConfig,
    TokenizerConfig,
    TrainConfig,
    from_dict,
    to_dict,
)
from ttcjax.data import loader, prepare
from ttcjax.engine.engine import Solution
from ttcjax.engine.loading import load_engine
from ttcjax.eval.collect import greedy, revision_chains
from ttcjax.eval.records.answer_chains import AnswerChains
from ttcjax.eval.records.sample_rows import SCHEMA
from ttcjax.eval.sections.verifying import outcome
from ttcjax.model import heads, transformer
from ttcjax.model import params as model_params
from ttcjax.runtime.checkpoint import load_params, save_params
from ttcjax.runtime.errors import UserError
from ttcjax.runtime.parquet import read_shard, shard_path, write_shard
from ttcjax.search.chains import Answer, Reviser
from ttcjax.testing import folders
from ttcjax.text import tokenizer as tokenizers
from ttcjax.train.collect import attempts
from ttcjax.train.models import base_orm, larger, orm, policy, prm
from ttcjax.verify import formats
from ttcjax.verify.value_head import ValueHead

TRAIN = TrainConfig(
    steps=12,
    batch_size=8,
    seq_len=96,
    optimizer=OptimizerConfig(learning_rate=1e-2, warmup_steps=2),
    validate_every=6,
    checkpoint_every=6,
    log_every=4,
)
GUESSED = dataclasses.replace(
    TRAIN, steps=40, validate_every=4, optimizer=OptimizerConfig(learning_rate=2e-2, warmup_steps=2)
)
CONFIG = ExperimentConfig(
    data=DataConfig(name="gsm8k", dir="unset", num_train=400, num_valid=20, num_test=20),
    tokenizer=TokenizerConfig(vocab_size=420),
    model=ModelConfig(num_layers=2, d_model=16, num_heads=2, num_kv_heads=1, head_dim=8, d_ff=32, max_seq_len=128),
    policy=TRAIN,
    prm=PRMConfig(train=dataclasses.replace(TRAIN, dropout=0.05), valid_fraction=0.2),
)


def _write_labels(config, workdir, questions=10, rng=None):
    """Give every step of a few reference solutions a label that is known from its line.

    Else one that is drawn, and the last question's solutions one too many.
    """
    task, splits = loader.load(config.data, workdir / "data")
    examples = [splits.train[i] for i in range(questions)]
    label = (lambda i: 1 / (1 + i)) if rng is None else lambda i: float(rng.integers(0, 2))
    columns = {
        "question": [e.id for e in examples for _ in range(2)],
        "sample": pa.array([i for _ in examples for i in range(2)], pa.int32()),
        "prompt": [task.prompt(e.question) for e in examples for _ in range(2)],
        "solution": [e.solution for e in examples for _ in range(2)],
        "step_values": pa.array(
            [
                [label(i)] * (len(e.solution.split("\n")) + (rng is not None and e is examples[-1]))
                for e in examples
                for i in range(2)
            ],
            pa.list_(pa.float32()),
        ),
        "correct": [True] * (2 * questions),
    }
    (workdir / "labels").mkdir()
    table = pa.table(columns)
    pq.write_table(table.slice(0, 8), workdir / "labels" / "shard-00000.parquet")
    pq.write_table(table.slice(8), workdir / "labels" / "shard-00001.parquet")
    folders.complete(workdir / "labels")


def _write_questions(folder):
    """Files in GSM8K's form."""
    for split, count in (("train", 420), ("test", 20)):
        lines = []
        for i in range(count):
            a, b, c = i % 21, i // 21, len(split)
            solution = f"{a} + {b} = <<{a}+{b}={a + b}>>{a + b}\n{a + b} + {c} = {a + b + c}\n#### {a + b + c}"
            lines.append(json.dumps({"question": f"What is {a} plus {b} plus {c}?", "answer": solution}))
        (folder / f"{split}.jsonl").write_text("\n".join(lines))


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    _write_questions(folder)
    return dataclasses.replace(CONFIG, data=dataclasses.replace(CONFIG.data, dir=str(folder)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory, config):
    """A workdir with finished stages, and the results of the two training stages."""
    workdir = epath.Path(tmp_path_factory.mktemp("workdir"))
    folders.run_stage(prepare.STAGE, config, workdir, workdir / "data")
    policy_result = folders.run_stage(policy.STAGE, config, workdir, workdir / "policy")
    _write_labels(config, workdir)
    return workdir, policy_result, folders.run_stage(prm.STAGE, config, workdir, workdir / "prm")


def test_the_policy_learns_from_scratch(trained):
    workdir, result, _ = trained
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")
    events = [json.loads(line) for line in (workdir / "policy" / "metrics.jsonl").read_text().splitlines()]
    first = next(e["loss"] for e in events if e["kind"] == "train")
    assert result["valid_loss"] < first <= np.log(tokenizer.vocab_size) + 1
    assert json.loads(json.dumps(result)) == result
    assert result["steps"] == 12
    assert 0 < result["tokens_seen"] <= 12 * 8 * 96


@pytest.fixture(scope="module")
def with_larger(trained, config):
    """The config and result of a larger policy in the same workdir."""
    workdir, _, _ = trained
    bigger = dataclasses.replace(CONFIG.model, num_layers=3, d_model=32, num_heads=4)
    larger_config = LargerConfig(True, bigger, OptimizerConfig(learning_rate=5e-3, warmup_steps=2))
    config = dataclasses.replace(config, larger=larger_config, sampler=SamplerConfig(max_tokens=32, rows=8))
    return config, folders.run_stage(larger.STAGE, config, workdir, workdir / "larger")


def test_the_larger_policy_sees_the_same_data(trained, with_larger):
    workdir, small, _ = trained
    config, result = with_larger
    assert result["tokens_seen"] == small["tokens_seen"]
    assert result["params"] > 2 * small["params"]
    params, metadata = load_params(workdir / "larger" / "best")
    assert metadata["kind"] == "larger"
    assert result["params"] == model_params.count(params)
    rates = [
        json.loads(line)["lr"]
        for line in (workdir / "larger" / "metrics.jsonl").read_text().splitlines()
        if "lr" in line
    ]
    assert max(rates) <= config.larger.optimizer.learning_rate < TRAIN.optimizer.learning_rate


def test_greedy_answers_are_the_likeliest_token_each_time(trained, with_larger):
    workdir, _, _ = trained
    config, _ = with_larger
    found = folders.run_stage(greedy.STAGE, config, workdir, workdir / "greedy")
    assert found == {"questions": 20, "shards": 2, "files": ["shard-00000.parquet", "shard-00001.parquet"]}
    task, splits = loader.load(config.data, workdir / "data")
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")
    for number, stage in enumerate(greedy.MODELS):
        rows = read_shard(shard_path(workdir / "greedy", number), SCHEMA).to_pylist()
        assert [row["question"] for row in rows] == [e.id for e in splits.test[:]]
        assert {(row["strategy"], row["n"]) for row in rows} == {(f"greedy:{stage}", 1)}
        params, metadata = load_params(workdir / stage / "best", tokenizer)
        params, model = jax.tree.map(jnp.asarray, params), from_dict(ModelConfig, metadata["model"])
        positions = jnp.arange(model.max_seq_len, dtype=jnp.int32)[None]

        @jax.jit
        def logits(params, tokens, model=model, positions=positions):
            return heads.logits(params, transformer.forward(params, tokens, positions, model), model)[0]

        def padded(tokens, model=model):  # What comes after a token does not decide what is likely there.
            return jnp.asarray([tokens + [0] * (model.max_seq_len - len(tokens))], jnp.int32)

        compared = 0
        for example, row in zip(splits.test[:3], rows, strict=False):
            tokens = [tokenizer.bos_id, *tokenizer.encode(task.prompt(example.question))]
            start, sure = len(tokens), True
            error = rounding.noise(functools.partial(logits, tokens=padded(tokens)), params, model.d_ff)
            while len(tokens) < start + 32 and tokens[-1] != tokenizer.eos_id:
                found = np.asarray(logits(params, padded(tokens))[len(tokens) - 1])
                second, first = np.partition(found, -2)[-2:]
                sure &= bool(first - second > 2 * error)  # Else either may be the likeliest, by rounding.
                tokens.append(int(np.argmax(found)))
            if sure:
                assert row["tokens"] == len(tokens) - start
                assert row["finished"] == (tokens[-1] == tokenizer.eos_id)
                assert row["text"] == tokenizer.decode([t for t in tokens[start:] if t != tokenizer.eos_id])
                compared += 1
        assert compared, "no answer whose tokens are beyond doubt"
    folders.complete(workdir / "greedy")
    assert {model: table.num_rows for model, table in greedy.read(workdir / "greedy").items()} == {
        "policy": 20,
        "larger": 20,
    }


def test_dropout_of_0_turns_the_models_own_off(trained, config, tmp_path):
    workdir, result, _ = trained
    own = dataclasses.replace(config.model, dropout=0.4)
    for given, same in ((0.0, True), (None, False)):
        other = dataclasses.replace(config, model=own, policy=dataclasses.replace(TRAIN, dropout=given))
        found = folders.run_stage(policy.STAGE, other, workdir, epath.Path(tmp_path / str(given)))
        assert (found["train_loss"] == result["train_loss"]) is same


def test_the_policy_is_readable_with_its_config(trained):
    workdir, result, _ = trained
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")
    params, metadata = load_params(workdir / "policy" / "best", tokenizer)
    model = from_dict(ModelConfig, metadata["model"])
    assert metadata["kind"] == "policy"
    assert model == dataclasses.replace(CONFIG.model, vocab_size=tokenizer.vocab_size)
    load_params(workdir / "policy" / "best", tokenizer, expect=model_params.abstract(model))
    assert result["params"] == model_params.count(params)


def test_the_prm_is_readable_and_has_a_value_head(trained):
    workdir, _, result = trained
    params, metadata = load_params(workdir / "prm" / "best")
    model = from_dict(ModelConfig, metadata["model"])
    assert metadata["kind"] == "prm"
    judge = formats.read(metadata)
    assert isinstance(judge, ValueHead)
    assert judge.likelihood == CONFIG.prm.likelihood
    load_params(workdir / "prm" / "best", expect=model_params.abstract(model, judge.heads))
    assert np.any(params["value"]["w"] != 0), "the value head must have been trained"
    assert result["train_questions"] + result["valid_questions"] == 10
    assert (result["valid_questions"], result["valid_solutions"]) == (2, 4)
    assert result["valid_loss"] < np.log(2), "soft labels of mean 0.75 are learnt below the loss of guessing"


@pytest.fixture(scope="module")
def guessed(tmp_path_factory, trained, config):
    """A PRM of labels that nothing explains: it soon learns them by heart, and goes on to learn the solutions."""
    workdir, _, _ = trained
    other = epath.Path(tmp_path_factory.mktemp("guessed"))
    for stage in ("data", "policy"):
        shutil.copytree(workdir / stage, other / stage)
    _write_labels(config, other, 40, np.random.default_rng(0))
    config = dataclasses.replace(config, prm=PRMConfig(train=GUESSED, imitation=1.0, valid_fraction=0.3))
    return other, folders.run_stage(prm.STAGE, config, other, other / "prm")


def test_the_prms_checkpoint_is_the_best_at_judging_not_at_imitating(guessed):
    workdir, result = guessed
    events = [json.loads(line) for line in (workdir / "prm" / "metrics.jsonl").read_text().splitlines()]
    valid = [event for event in events if event["kind"] == "valid"]
    joint, own = (min(valid, key=lambda event: event[name]) for name in ("loss", "step_loss"))
    assert joint["step"] != own["step"], "the test could not see which of the two chooses"
    assert (result["chosen_by"], result["best_step"]) == ("step_loss", own["step"])
    assert result["valid_metrics"]["step_loss"] == own["step_loss"]
    assert load_params(workdir / "prm" / "best")[1]["step"] == own["step"]


def test_the_base_orm_learns_from_what_the_prm_does_unless_told_otherwise(guessed, config, tmp_path):
    workdir, result = guessed
    assert result["train_solutions"] + result["valid_solutions"] == 2 * 39, "one question's labels do not fit its steps"
    train = dataclasses.replace(TRAIN, steps=4, batch_size=2)
    whose: Literal["prm", "orm"]
    for whose in ("prm", "orm"):
        same = whose == "prm"
        given = dataclasses.replace(
            config,
            prm=PRMConfig(train=GUESSED, imitation=1.0, valid_fraction=0.3),
            orm=ORMConfig(base=True, base_settings=whose, train=train, valid_fraction=0.3),
        )
        found = folders.run_stage(base_orm.STAGE, given, workdir, epath.Path(tmp_path / whose))
        reason = outcome.comparable({"prm": {"result": result}, "base_orm": {"result": found}})
        assert reason == (None if same else "the PRM was trained on 40 steps, the ORM on 4")
        assert (found["tokens_seen"] == result["tokens_seen"]) is same
        assert found["learnt_from"] == result["learnt_from"]
        assert found["learnt_from"]["examples"] == found["train_answers"] == result["train_solutions"]
        assert found["chosen_by"] == "step_loss"
    labels = prm.read_labels(workdir / "labels")
    used = [row for row in labels if len(row[3]) == len(row[2].split("\n"))]
    read = prm.outcomes(labels, tokenizers.load(workdir / "data" / "tokenizer.model"))
    assert [(o.question, o.answer, o.correct) for o in read] == [(q, s, v[-1] > 0.5) for q, _, s, v in used]


@pytest.fixture(scope="module")
def attempted(trained, config):
    """The config of a workdir with a revision model (the policy) and chains of twelve questions, made up."""
    workdir, _, _ = trained
    config = dataclasses.replace(
        config,
        sampler=SamplerConfig(max_tokens=32, rows=8),
        revision=RevisionConfig(enabled=True, train=TRAIN, max_seq_len=256),
        orm=ORMConfig(
            variants=("history", "no_history"),
            valid_fraction=0.5,
            train=dataclasses.replace(TRAIN, steps=8, validate_every=4, seq_len=256),
        ),
    )
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")
    params, metadata = load_params(workdir / "policy" / "best", tokenizer)
    model = from_dict(ModelConfig, metadata["model"] | {"max_seq_len": config.revision.max_seq_len})
    save_params(workdir / "revision" / "best", params, metadata | {"kind": "revision", "model": to_dict(model)})
    task, splits = loader.load(config.data, workdir / "data")
    rng, rows = np.random.default_rng(1), []
    for example in (splits.train[i] for i in range(20, 32)):
        for chain in range(2):
            added = rng.integers(0, 2, 3).tolist()
            answers = [f"{example.solution.rpartition(' ')[0]} {int(example.answer) + more}" for more in added]
            correct = [task.grade(task.extract(text), example.answer) for text in answers]
            assert correct == [not more for more in added]
            rows.append(
                {
                    "question": example.id,
                    "prompt": task.prompt(example.question),
                    "chain": chain,
                    "answers": answers,
                    "correct": correct,
                    "parsable": [True] * 3,
                }
            )
    write_shard(shard_path(workdir / "attempts", 0), rows, attempts.SCHEMA)
    for stage, names in (("revision", ["best"]), ("attempts", None), ("prm", ["best"])):
        folders.complete(workdir / stage, names)
    return config, workdir, rows, tokenizer


def test_the_orm_stage_tells_which_verifier_selects_best_on_questions_it_held_out(attempted):
    """The reference scores the chains as the chains stage does, and reads the choices from its rows."""
    config, workdir, rows, tokenizer = attempted
    found = folders.run_stage(orm.STAGE, config, workdir, workdir / "orm")
    assert json.loads(json.dumps(found)) == found
    held = prm.held_out((row["question"] for row in rows), 0.5, "x")
    selection = found["selection"]
    assert selection["questions"] == len(held) == 6
    assert list(selection["accuracy"]) == ["history", "no_history", "prm"]
    assert selection["chosen"] == max(selection["accuracy"], key=lambda name: selection["accuracy"][name])
    folders.complete(workdir / "orm", ["history/best", "no_history/best"], result=found)
    task, splits = loader.load(config.data, workdir / "data")
    examples = [e for e in splits.train[20:32] if e.id in held]
    assert len(examples) == len(held)
    written = {row["question"]: [] for row in rows}
    for row in rows:
        solutions = [
            Solution((*tokenizer.encode(text), tokenizer.eos_id), text, finished=True, logprob=0.0)
            for text in row["answers"]
        ]
        written[row["question"]].append([Answer(solution, 0) for solution in solutions])
    scored = {}
    for name in selection["accuracy"]:
        stage = "prm" if name == "prm" else f"orm/{name}"
        engine = load_engine(workdir, config.sampler, policy="revision", verifier=stage)
        prompts = [engine.encode_prompt(e.id, task.prompt(e.question)) for e in examples]
        reviser = Reviser(engine, prompts, config.revision.view, history=name == "history")
        scored[name] = reviser.score([written[e.id] for e in examples])
    table = revision_chains.result_rows(task, examples, scored, "revise", 0, 0.0)
    laid_out = AnswerChains.from_table(pa.Table.from_pylist(table, schema=revision_chains.SCHEMA), [3, 3])
    for name, value in selection["accuracy"].items():
        heads = [laid_out.accuracy(s, 2, "hierarchical", name).mean() for s in (1, 2, 3)]
        assert value == pytest.approx(np.mean(heads))
    assert 0 < min(selection["accuracy"].values()) < 1, "right and wrong answers are both among the choices"


def test_what_was_learnt_from_is_known_by_its_tokens_and_not_by_its_labels():
    tokens = [np.arange(k, dtype=np.int32) for k in (3, 5)]
    examples = [{"tokens": t, "labels": np.zeros(len(t), np.float32)} for t in tokens]
    found = prm.learnt_from(examples)
    assert (found["examples"], found["tokens"]) == (2, 8)
    assert prm.learnt_from([{**e, "labels": 1 + e["labels"]} for e in examples]) == found
    cut = [{"tokens": np.arange(8, dtype=np.int32)}]
    for other in (examples[::-1], cut, [examples[0], {"tokens": tokens[1][::-1]}]):
        assert prm.learnt_from(other)["hash"] != found["hash"]


def test_the_prm_starts_from_the_policys_trunk(trained):
    workdir, _, _ = trained
    trunk, metadata = load_params(workdir / "policy" / "best")
    model = from_dict(ModelConfig, metadata["model"])
    start = prm.initial_params(trunk, model, ValueHead(), seed=0)
    for name in ("embed", "layers", "final_norm"):
        assert jax.tree.all(jax.tree.map(np.array_equal, start[name], trunk[name])), name
    assert set(start) == {"embed", "layers", "final_norm", "value"}


def test_both_stages_can_be_run_again_for_the_same_result(trained, config):
    workdir, policy_result, prm_result = trained
    assert folders.run_stage(policy.STAGE, config, workdir, workdir / "policy") == policy_result
    assert folders.run_stage(prm.STAGE, config, workdir, workdir / "prm") == prm_result


def test_a_stage_goes_on_from_its_checkpoint_bit_for_bit(trained, config, tmp_path):
    workdir, result, _ = trained
    out = epath.Path(tmp_path) / "policy"
    shutil.copytree(workdir / "policy", out)
    (out / "checkpoints" / "12").rmtree()
    assert folders.run_stage(policy.STAGE, config, workdir, out) == result
    resumed, whole = (load_params(folder / "best")[0] for folder in (out, workdir / "policy"))
    assert jax.tree.all(jax.tree.map(np.array_equal, resumed, whole))


def test_held_out_questions_depend_on_their_ids_alone():
    ids = [f"q{i}" for i in range(100)]
    held = prm.held_out(ids, 0.1, "x")
    assert len(held) == 10
    assert prm.held_out(reversed(ids), 0.1, "x") == held


@pytest.mark.parametrize(("count", "fraction"), [(2, 0.01), (2, 0.99), (3, 0.5)])
def test_neither_part_is_ever_empty(count, fraction):
    assert 0 < len(prm.held_out([str(i) for i in range(count)], fraction, "x")) < count


def test_one_question_is_too_few():
    with pytest.raises(UserError, match="raise --labels"):
        prm.held_out(["a", "a"], 0.5, "labels.questions")


def test_missing_labels_name_the_stage(tmp_path):
    with pytest.raises(UserError, match="run the labels stage first"):
        prm.read_labels(epath.Path(tmp_path / "labels"))


def test_a_truncated_labels_file_is_one_line(trained, tmp_path):
    workdir, _, _ = trained
    data = (workdir / "labels" / "shard-00000.parquet").read_bytes()
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "shard-00000.parquet").write_bytes(data[: len(data) // 2])
    folders.complete(tmp_path / "labels")
    with pytest.raises(UserError, match=r"shard-00000.parquet is damaged \(corrupt or cut short\)") as error:
        prm.read_labels(epath.Path(tmp_path / "labels"))
    assert "\n" not in str(error.value)


def test_a_vocabulary_smaller_than_the_tokenizers_is_refused(trained):
    workdir, _, _ = trained
    tokenizer = tokenizers.load(workdir / "data" / "tokenizer.model")
    with pytest.raises(UserError, match="set it to 0"):
        policy.resolve_model(dataclasses.replace(CONFIG.model, vocab_size=100), tokenizer)


def test_a_prm_of_another_tokenizers_policy_is_refused(trained, config, tmp_path):
    workdir, _, _ = trained
    other = epath.Path(tmp_path)
    folders.run_stage(
        prepare.STAGE, dataclasses.replace(config, tokenizer=TokenizerConfig(vocab_size=400)), other, other / "data"
    )
    for stage in ("policy", "labels"):
        shutil.copytree(workdir / stage, other / stage)
    with pytest.raises(UserError, match="was trained with tokenizer"):
        folders.run_stage(prm.STAGE, config, other, other / "prm")
