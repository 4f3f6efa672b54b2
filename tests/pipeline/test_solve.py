"""One question: how it is read, what is said of it, and which settings it may have."""

import dataclasses

import numpy as np
import pytest
from etils import epath

from ttcjax import cli
from ttcjax import config as config_lib
from ttcjax.cli import parser
from ttcjax.config import ConfigError, DataConfig, ExperimentConfig, ModelConfig, PRMConfig, SamplerConfig, TrainConfig
from ttcjax.data.prepare import FAMILIAR_FILE
from ttcjax.engine.engine import Engine, Solution
from ttcjax.parallel import make_mesh
from ttcjax.pipeline import solve
from ttcjax.runtime import records
from ttcjax.runtime.errors import DamagedError, UserError
from ttcjax.search.session import Outcome
from ttcjax.testing import folders
from ttcjax.text.familiar import Familiar

QUESTION = "Find the remainder when 8+2 is divided by 3."


ENGINES: dict[SamplerConfig, Engine] = {}
"""Those of all tests, so that their programs compile once."""


@pytest.fixture
def workdir(tmp_path, tiny, monkeypatch):
    """A workdir with random models, whose training questions were those of `tiny`."""
    sampler = SamplerConfig(max_tokens=24, max_step_tokens=6, verifier_chunk=4, prompt_bucket=64)
    train = TrainConfig(seq_len=96)
    config = ExperimentConfig(
        data=DataConfig(num_train=300),
        model=ModelConfig(max_seq_len=96),
        policy=train,
        prm=PRMConfig(train=train),
        sampler=sampler,
    )
    asked = tiny.tokenizer.encode_batch([f"{example.question}\n" for example in tiny.questions])
    (tmp_path / "data").mkdir()
    Familiar.fit(asked[::2], asked[1::2], tiny.tokenizer.vocab_size).save(tmp_path / "data" / FAMILIAR_FILE)
    folders.complete(tmp_path / "data")
    folders.complete(tmp_path / "prm", config=config_lib.to_dict(config))

    def load_engine(workdir, sampler, **_):
        if sampler not in ENGINES:
            ENGINES[sampler] = Engine(tiny.policy, tiny.tokenizer, sampler, tiny.verifier, make_mesh({"data": 1}))
        return ENGINES[sampler]

    monkeypatch.setattr(solve, "load_engine", load_engine)
    return epath.Path(tmp_path)


def ask(workdir, question, strategy="best_of_n:n=4", **options):
    return solve.solve(question, workdir, strategy, **options)


@pytest.mark.parametrize("strategy", ["majority:n=4", "beam:n=4,width=2"])
def test_a_strategy_may_name_its_temperature(workdir, strategy):
    sampler = SamplerConfig(max_tokens=24, max_step_tokens=6, verifier_chunk=4, prompt_bucket=64, temperature=0.6)
    cold = ask(workdir, QUESTION, sampler=sampler, strategy=strategy)
    own = ask(workdir, QUESTION, strategy=f"{strategy},temperature=0.6")
    assert (own.answer, own.votes, own.steps) == (cold.answer, cold.votes, cold.steps)
    assert own.steps != ask(workdir, QUESTION, strategy=strategy).steps
    with pytest.raises(ConfigError, match=r"temperature in strategy .* must be a number above 0"):
        ask(workdir, QUESTION, strategy=f"{strategy},temperature=validated")


def test_selectors_choose_as_their_names_say(workdir, monkeypatch):
    """A vote of two against two goes to the first; the verifier likes 2, the policy 1 by the token."""
    made = [("1", 4, -0.4, 0.2), ("2", 2, -0.3, 0.9), ("2", 4, -4.0, 0.1), ("1", 4, -0.2, 0.3)]
    candidates = [
        Solution((0,) * tokens, f"Answer: {answer}", True, logprob, (score,)) for answer, tokens, logprob, score in made
    ]
    seen: list[Outcome] = []

    def run(strategy, session, seed):
        seen[:] = [session.judged(Outcome(candidates, 4), strategy)]
        return seen

    monkeypatch.setattr(solve, "run", run)

    def found(strategy):
        return solve.solve(QUESTION, workdir, strategy)

    assert found("majority:n=4").answer == "1"
    assert found("majority:n=4").steps == [("Answer: 1", 0.2)], "a vote shows its first sample"
    assert found("majority:n=4,ties=verifier").answer == "2"
    assert found("best_of_n:n=4").answer == "2"
    assert seen[0].choices == {"majority": 0, "best": 1, "weighted": 1, "softmax": 1, "own": 1}
    unread = dataclasses.replace(seen[0], scores=None)
    assert unread.choices == {"majority": 0}, "all others ask the verifier"
    for select in ("weighted", "best"):
        assert found(f"best_of_n:n=4,select={select},by=likelihood").answer == "1"
        assert seen[0].choices == {"majority": 0, "best": 1, "weighted": 1, "softmax": 1, "own": 3}
    answer, weight, count = found("best_of_n:n=4,by=likelihood").votes[0]
    assert (answer, count) == ("1", 2)
    assert weight == pytest.approx(np.exp(-0.1) + np.exp(-0.05))


def test_white_space_around_a_question_does_not_count(workdir):
    plain = ask(workdir, QUESTION)
    for spelling in (f"  {QUESTION}", f"{QUESTION}\n", f"\t{QUESTION} \r\n"):
        found = ask(workdir, spelling)
        assert (found.question, found.answer, found.votes) == (plain.question, plain.answer, plain.votes), spelling
    for empty in ("", " \n"):
        with pytest.raises(UserError, match="the question is empty"):
            ask(workdir, empty)


@pytest.mark.parametrize("strange", ["Who was the first president?", "π", "Tell me a story", "x" * 40, "\x1b[31m"])
def test_a_question_unlike_those_of_training_is_answered_with_a_warning(workdir, tiny, strange):
    known = [ask(workdir, example.question).warning for example in tiny.questions[:6:2]]
    assert known == [None] * 3, "these are training questions"
    warning = ask(workdir, strange).warning
    assert warning is not None
    assert "unlike those that the policy was trained on" in warning


def test_a_workdir_without_that_file_is_asked_all_the_same(workdir):
    (workdir / "data" / FAMILIAR_FILE).unlink()
    warning = ask(workdir, "Tell me a story").warning
    assert warning is not None
    assert f"{FAMILIAR_FILE} is gone" in warning
    records.path_of(workdir / "data").unlink()
    assert ask(workdir, "Tell me a story").warning is None, "a folder of models alone"


@pytest.mark.parametrize("content", ["{", "", "[]", None])
def test_a_record_that_cannot_be_read_is_named(workdir, content):
    path = records.path_of(workdir / "prm")
    path.unlink() if content is None else path.write_text(content)
    with pytest.raises(UserError, match=r"prm has no record that can be read \(.*prm.json\)"):
        ask(workdir, QUESTION)


def test_half_of_a_character_is_no_question(workdir):
    with pytest.raises(UserError, match="half of a character"):
        ask(workdir, "\ud800?")


@pytest.mark.parametrize("damage", [lambda b: b[:3000], lambda b: b[:60] + bytes([b[60] ^ 1]) + b[61:], lambda b: b""])
def test_a_damaged_file_is_named_before_the_search(workdir, damage, monkeypatch):
    path = workdir / "data" / FAMILIAR_FILE
    path.write_bytes(damage(path.read_bytes()))
    monkeypatch.setattr(solve, "run", lambda *_: pytest.fail("the answer is lost with it"))
    with pytest.raises(DamagedError, match=f"{FAMILIAR_FILE} is damaged"):
        ask(workdir, QUESTION)


def test_rows_that_are_asked_for_are_rows_at_once(workdir, monkeypatch):
    seen = []
    load = solve.load_engine
    monkeypatch.setattr(solve, "load_engine", lambda at, sampler, **o: seen.append(sampler) or load(at, sampler, **o))
    few = SamplerConfig(max_tokens=24, max_step_tokens=6, verifier_chunk=4, prompt_bucket=64, rows=2)
    assert ask(workdir, QUESTION, sampler=few).votes == ask(workdir, QUESTION).votes
    assert [sampler.rows for sampler in seen] == [2, 4]


@pytest.mark.parametrize("strategy", ["beem:n=4", "revisee:s=2", "nothing", ""])
def test_an_unknown_strategy_is_answered_with_all_that_are_known(workdir, strategy):
    with pytest.raises(ConfigError) as error:
        solve.solve(QUESTION, workdir, strategy)
    known = "known: majority, best_of_n, beam, lookahead, dvts, rebase, particles, adaptive, revise, refine"
    assert "did you mean" in str(error.value) or known in str(error.value)


def test_limits_that_a_message_names_are_settings_of_the_same_command(workdir, capsys, tiny):
    """The advice used to be `lower --sampler.max-tokens`, which solve did not take."""
    sums = (f"What is {' + '.join(map(str, range(1, n)))}?" for n in range(3, 65))
    long = next(question for question in sums if len(tiny.tokenizer.encode(question)) > 74)  # 72 leave room for 24.
    given = ["solve", long, "--workdir", str(workdir), "--strategy", "best_of_n:n=2"]
    assert cli.main(given) == 2
    line = capsys.readouterr().err.splitlines()[-1]
    assert "lower --sampler.max_tokens" in line
    assert cli.main([*given, "--sampler.max_tokens", "6"]) == 0
    assert cli.main([*given, "--sampler.memory=0.00001", "--sampler.max_tokens", "6"]) == 2
    assert "raise --sampler.memory" in capsys.readouterr().err
    assert cli.main([*given, "--sampler.max_tokns", "6"]) == 2
    assert "did you mean --sampler.max_tokens?" in capsys.readouterr().err


@pytest.mark.parametrize(
    "question", ["-5x=10", "-3 + 5 = ?", "--help me", "--workdir", "-h", "--", "--seed=3", "--debug", "=", "-"]
)
def test_any_question_is_a_question(workdir, capsys, question):
    """After `--` each of these; and without it those that are no option."""
    assert cli.main(["solve", "--workdir", str(workdir), "--strategy", "majority:n=2", "--", question]) == 0
    assert capsys.readouterr().out.startswith(question)


def test_a_question_with_a_dash_needs_no_mark_unless_it_is_an_option():
    for question in ("-5x=10", "-3 + 5", "--help me", "--sampler", "-x"):
        given = ["solve", question, "--workdir", "w", "--seed", "3", "--sampler.top_k", "2"]
        assert parser.prepared(given) == [
            *("solve", "--workdir", "w", "--seed", "3"),
            '--sampler.SETTING=["--sampler.top_k", "2"]',
            *("--", question),
        ]
    assert parser.prepared(["run", "-x", "--"]) == ["run", "-x", "--"], "other commands are left alone"
    with pytest.raises(UserError, match="one question, not 2: put it in quotes"):
        parser.prepared(["solve", "What", "is", "--workdir", "w"])


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ([], "required"),
        (["--workdir", "w"], "required: QUESTION"),
        (["1+1?"], "required: --workdir"),
        (["1+1?", "--workdir"], "expected one argument"),
    ],
)
def test_what_is_missing_of_a_command_is_named(capsys, given, words):
    assert cli.main(["solve", *given]) == 2
    assert words in capsys.readouterr().err
