"""Final answers found in whole solutions, and none where a solution states none."""

import json
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ttcjax.text import grading

GSM8K = pathlib.Path(__file__).parents[3] / "shared" / "data" / "gsm8k"


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        # Boxes.
        (r"so \boxed{5}.", "5"),
        (r"\boxed{1} and then \boxed{\frac{1}{\sqrt{2}}}", r"\frac{1}{\sqrt{2}}"),
        (r"\boxed{73} is the value of \boxed, which I put in \boxed{}", "73"),
        (r"\fbox{7}", "7"),
        (r"**Final Answer**" + "\n" + r"\[\boxed{\text{E}}\]", r"\text{E}"),
        (r"\boxed{\begin{pmatrix}1\\2\end{pmatrix}}", r"\begin{pmatrix}1\\2\end{pmatrix}"),
        (r"the answer is 4, no: $\boxed{5}$", "5"),
        # Marks of a line.
        ("2+2=4\n#### 42\n", "42"),
        ("#### 42\n" + "I checked it. " * 30, "42"),
        ("#### 41\n#### 42", "42"),
        ("so 5\nA: $18", "18"),
        ("Answer: 42", "42"),
        ("**Answer:** 42", "42"),
        ("Answer: (B)\n", "(B)"),
        ("ANSWER: 3/4", "3/4"),
        # Sentences.
        ("The answer is 42.", "42"),
        ("The final answer is: $\\frac{3}{4}$.", "3/4"),
        ("Final Answer: The final answer is $12$. I hope it is correct.", "12"),
        ("Final Answer: The largest $n$ is 34.", "34"),
        ("The correct answer is C because it is larger.", "C"),
        ("The answer is $5$. Let me check: 2+2=4.", "5"),
        ("**Final Answer**\n\n$x = 7$", "x = 7"),
        ("The answer is\n$$\\frac{1}{2}$$", "1/2"),
        ("\u6240\u4ee5\uff0c\u7b54\u6848\u662f 42", "42"),
        ("The answer is 42<|im_end|>", "42"),
        # A last line.
        ("We add.\n\n$\\frac{7}{2}$", "7/2"),
        ("We add.\n**12 apples**", "12 apples"),
        ("Adding gives\n\\[\nx = 7\n\\]", "x = 7"),
        ("First 3. Then 4.\nTherefore, the sum is 7.", "7"),
        ("42", "42"),
        # None.
        ("", None),
        ("I do not know.", None),
        (r"\boxed{", None),
        (r"\boxed{73}, no, \boxed{7", None),
        (r"the answer is 5, and so \boxed{1", None),
        ("The answer is 12 +", None),
        ("The answer is", None),
        ("#### \n", None),
        # Cut off on the way: a number is there, and it is no answer.
        ("First, 12 * 4 = 48.\nThen 48 + 5 =", None),
        ("First, 12 * 4 = 48 apples", None),
        ("We have 3 boxes.\nEach box has 12 apples, so 3 * 12 = 36", None),
        ("We get $x = 5$ and now we", None),
        ("Step 1: 2 + 3 = 5\nStep 2: 5 * 2 = 10", None),
    ],
)
def test_what_a_solution_states(text, answer):
    assert grading.extract_answer(text) == answer


@pytest.mark.parametrize(
    "number", ["36", "-1/2", "1,250", r"\frac{3}{4}", r"2\sqrt{3}", "(1, 2)", "x^2+1", "90^\\circ"]
)
@pytest.mark.parametrize(
    "form", [r"so $\boxed{{{}}}$", "The answer is ${}$.", "Answer: {}", "#### {}", "so\n\\[ {} \\]", "is\n**{}**"]
)
def test_an_answer_is_read_as_it_was_put(number, form):
    found = grading.extract_answer(form.format(number))
    assert found is not None
    assert grading.grade(found, number), found


def test_a_text_cut_anywhere_before_its_answer_has_none():
    """A truncated trace must not score by a number on the way."""
    text = "First, 3 * 12 = 36 apples.\nThen 36 + 6 = 42, and half of it is 21.\nSo we have 21 * 2"
    for end in range(len(text)):
        assert grading.extract_answer(text[:end]) in (None, grading.extract_answer(text[:end].split("\n")[0]))
    whole = text + r" = \boxed{42}."
    for end in range(len(text) + 4, len(whole) - 1):
        assert grading.extract_answer(whole[:end]) is None, whole[:end]
    assert grading.extract_answer(whole) == "42"


@given(st.text(alphabet="\\boxed{}#$ Answer is:1,./-\n*", max_size=60))
def test_extraction_never_fails_and_never_returns_empty_text(text):
    answer = grading.extract_answer(text)
    assert answer is None or answer.strip()
    assert isinstance(grading.final_answer(text), str)


@pytest.mark.skipif(not GSM8K.exists(), reason="needs ../shared/data/gsm8k beside the repository")
def test_the_published_verdicts_on_real_models_solutions_are_reproduced_through_sentences():
    """Cobbe et al. 2021, every fourth question: also without GSM8K's own extraction and grading."""
    other, count = [], 0
    for line in (GSM8K / "example_model_solutions.jsonl").read_text().splitlines()[::4]:
        row = json.loads(line)
        for system in ("6b_finetuning", "6b_verification", "175b_finetuning", "175b_verification"):
            found = grading.extract_answer(row[system]["solution"])
            count += 1
            if grading.grade(found, row["ground_truth"]) != row[system]["is_correct"]:
                other.append((system, found, row["ground_truth"][-80:]))
    assert count == 1320
    assert not other
