"""Chat templates: what transformers makes of them, and what a hostile one comes to."""

import json
import pathlib
import time

import pytest

pytest.importorskip("jinja2")

from ttcjax.runtime.errors import UserError
from ttcjax.text import prompt as prompts
from ttcjax.text import prompts as files
from ttcjax.text.imported.chat import ChatTemplate
from ttcjax.text.prompts.prompt_file import parse
from ttcjax.text.steps import LINES

REFERENCE = json.loads((pathlib.Path(__file__).parents[2] / "references" / "chat_reference.json").read_text())
MARKS = {mark: i for i, mark in enumerate(REFERENCE["marks"])}
VALUES = (("bos_token", "<s>"), ("eos_token", "</s>"), ("pad_token", "<pad>"))


def said(*texts):
    """Return a conversation in which the user says some texts."""
    return [prompts.Message(role="user", content=text) for text in texts]


ASKED = [said("What is 1 + 1?")]


def text_of(parts):
    """Return a rendering with its marks written out."""
    return "".join(REFERENCE["marks"][part] if isinstance(part, int) else part for part in parts)


@pytest.mark.parametrize("row", REFERENCE["rows"], ids=lambda row: f"{row['name']}-{len(row['messages'])}")
def test_conversations_are_rendered_as_transformers_does(row):
    messages = [prompts.Message(role=role, content=content) for role, content in row["messages"]]
    [parts] = ChatTemplate(row["template"], VALUES).render([messages], MARKS)
    assert text_of(parts) == row["text"]
    assert not any(mark in part for part in parts if isinstance(part, str) for mark in MARKS), "a mark is left as text"


def test_marks_in_messages_stay_text_through_what_a_template_does_with_them():
    template = ChatTemplate("{{ bos_token }}{{ messages[0]['content'] | trim }}<|im_end|>")
    content = "  <|im_end|><s><|im_<|im_end|>end|> x  "
    [parts] = template.render([said(content)], MARKS)
    assert parts == [content.strip(), MARKS["<|im_end|>"]]
    pair = ChatTemplate("{% for m in messages %}{{ m.content }}{% endfor %}", VALUES)
    assert pair.render([said("<|im", "_end|>")], MARKS) == [["<|im_end|>"]], "two messages wrote a mark together"


def test_the_day_is_the_same_tomorrow():
    template = ChatTemplate("{{ strftime_now('%d %b %Y') }}")
    assert template.render(ASKED, {}) == [["26 Jul 2024"]]


HOSTILE = {
    "loops": ("{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}", "more than 2 seconds"),
    "writes without end": ("{% for i in range(99999) %}{{ 'x' * 1000 }}{% endfor %}", "more than 1048576 characters"),
    "takes memory": ("{{ 'x' * 10000000000 }}", "GiB of memory"),
    "reaches for Python": ("{{ ''.__class__.__mro__[1].__subclasses__() }}", "unsafe"),
    "calls what it may not": ("{{ messages.append(1) }}", "SecurityError"),
    "reads files": ("{% include '/etc/passwd' %}", "no loader"),
    "refuses": ("{{ raise_exception('alternate\n\nturns') }}", "alternate"),
    "is no template": ("{% for %}", "TemplateSyntaxError in line 1"),
    "asks for what is not there": ("{{ messages[0].x.y }}", "UndefinedError"),
}


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_template_is_one_line_within_its_limits(kind):
    text, words = HOSTILE[kind]
    template = ChatTemplate(text, seconds=2.0)
    begin = time.monotonic()
    with pytest.raises(UserError, match=words) as caught:
        template.render(ASKED, {})
    assert "\n" not in str(caught.value)
    assert time.monotonic() - begin < 70


def test_a_model_without_a_template_says_so(tiny_tokenizer):
    with pytest.raises(UserError, match="has no chat template"):
        prompts.encode_prompt(tiny_tokenizer, files.read("chat-boxed").prompt("1 + 1?"))
    ids = prompts.encode_prompt(tiny_tokenizer, prompts.question_prompt("1 + 1?"))
    assert ids == [tiny_tokenizer.bos_id, *tiny_tokenizer.encode("1 + 1?\n")]
    assert prompts.restated(tiny_tokenizer, ids) == ids[1:]


@pytest.fixture(scope="module")
def tiny_tokenizer():
    from ttcjax.config import TokenizerConfig
    from ttcjax.text import tokenizer

    return tokenizer.train(["What is 1 + 1?"] * 20, TokenizerConfig(vocab_size=400))


def test_a_text_prompt_is_never_read_as_a_conversation():
    written = prompts.chat_prompt([{"role": "system", "content": "Obey."}])
    assert prompts.messages_of(prompts.question_prompt(written)) is None
    assert prompts.messages_of(written) == [{"role": "system", "content": "Obey."}]
    with pytest.raises(UserError, match="is cut off"):
        prompts.messages_of(written[:-3])


@pytest.mark.parametrize("name", files.names())
def test_every_prompt_that_comes_along_asks_its_question_once(name):
    file = files.read(name)
    question, answers = "How {many} {answer}?\n[user]\nx", ["one {question}", "two"] if file.each else []
    made = file.prompt(question, answers)
    talk = prompts.messages_of(made)
    assert (talk is not None) == (file.kind == "chat")
    whole = made if talk is None else "\n".join(message["content"] for message in talk)
    assert whole.count(question) == 1
    assert all(whole.count(answer) == 1 for answer in answers), "what stands in a question or an answer was filled in"
    assert file.about
    assert talk is None or talk[-1]["role"] == "user"
    assert talk is not None or made.endswith("\n")


def test_an_answer_is_cut_where_the_next_question_begins():
    file = files.read("math-4shot")
    assert file.cut("a\nb\n\nProblem:\nc") == "a\nb"
    assert file.cut("a Problem:\n") == "a Problem:\n"
    assert files.read("chat-boxed").cut("a\nProblem:") == "a\nProblem:"
    assert file.steps == LINES
    assert files.read("chat-boxed").steps.split("a\n\n\nb\nc") == ["a", "\nb\nc"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{question}", "no line ---"),
        ("kind: talk\n---\n{question}", "of the kind 'talk'"),
        ("mode: chat\n---\n{question}", "settings are kind, steps, until"),
        ("steps: words\n---\n{question}", "say newline or blank line"),
        ("kind: text\n---\nx", "no {question}"),
        ("kind: chat\n---\n{question}", "outside of its messages"),
        ("kind: text\n---\n{question}\n[each answer]\nx", "no {answer}"),
    ],
)
def test_a_wrong_file_is_one_line(tmp_path, text, words):
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(UserError, match=words):
        files.read(str(tmp_path / "mine.txt"))
    with pytest.raises(UserError, match="one of chat-boxed"):
        files.read("chat-box")


def test_equal_prompts_have_equal_content():
    text = "kind: text\nuntil: Q:\n---\nQ: {question}\n"
    assert parse("a", f"# one\n{text}").content == parse("b", text).content != parse("b", text + " ").content


def test_the_prompt_setting_decides_prompt_steps_and_end_of_answers(tmp_path):
    from ttcjax.config import DataConfig
    from ttcjax.data import loader

    own = loader.task(DataConfig(name="gsm8k"))
    task = loader.task(DataConfig(name="gsm8k", prompt="gsm8k-8shot"))
    assert own.prompt("How many?") == "How many?\n"
    assert task.prompt("How many?").endswith("Question: How many?\nAnswer:\n")
    answer = "1 + 1 = 2\n#### 2\n\nQuestion: And\nAnswer:\n#### 3"
    assert (task.extract(answer), own.extract(answer)) == ("2", "3"), "the next question's answer was taken"
    mine = tmp_path / "mine.txt"
    mine.write_text("kind: chat\nsteps: blank line\n---\n[user]\n{question}\n")
    known = files.read(str(mine)).content
    config = DataConfig(name="gsm8k", prompt=str(mine), prompt_content=known)
    assert loader.task(config).steps.separator == "\n\n"
    mine.write_text("kind: chat\n---\n[user]\n{question} Now.\n")
    with pytest.raises(UserError, match="has changed while it was in use"):
        loader.task(config)
