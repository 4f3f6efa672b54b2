"""Answers that sentences state: read out of whole solutions, and out of answers with words around them."""

from __future__ import annotations

import re
from functools import lru_cache

from ttcjax.text.grading.algebra.answer_parser import read
from ttcjax.text.grading.algebra.latex_tokens import Node, Unreadable
from ttcjax.text.grading.extraction import boxes, canonical, is_left_out
from ttcjax.text.grading.quantities import is_prose
from ttcjax.text.grading.spelling import plain

_ANSWER_IS = re.compile(
    r"(?:(?:final|correct)[ \t]+)?answer(?:[ \t]+(?:to[ \t][^.\n:]{1,80}|here))?[ \t*_]*"
    r"(?:[ \t]+(?:is|are|will be|would be|must be|equals)(?![a-z])[ \t]*:?|:|=)[ \t*_]*(?P<rest>[^\n]*)"
    r"|\u7b54\u6848(?:\u662f|\u4e3a|\u70ba|:|\uff1a)[\uff1a: ]*(?P<chinese>[^\n]*)"
    r"|^[*_ \t]*A(?:ns)?:[*_ \t]*(?P<short>[^\n]*)"
    r"|\*{0,3}#*[ \t]*final answer[ \t*_:]*\n+(?P<next>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER = re.compile(r"answer|\u7b54\u6848|^[*_ \t]*A(?:ns)?:", re.IGNORECASE | re.MULTILINE)
_SENTENCE_END = re.compile(
    r"[.!?](?=\s+(?:[A-Z*]|$))(?<!\d\.)|[.!?](?=\s+(?:[A-Z][a-z]|I\b))|\s*<\||\s+I hope\b|\u3002"
)
_CUT_OFF = re.compile(r"(?:[-+*/=^_<(\[{,&:]|\\(?:frac|cdot|times|sqrt|pm|left|le|ge|text|in|cup))\s*$")
_SPAN = re.compile(
    r"\$\$((?:[^$\\]|\\.)+)\$\$|\$((?:[^$\\\n]|\\.)+)\$|\\\(((?:(?!\\[()]).)+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]",
    re.DOTALL,
)
_TAGS = re.compile(
    r"</?[a-z]{1,10}>|<[|\uff5c][^|>\n]{1,40}[|\uff5c]>.*|\bI hope (?:it|this|that)(?: is)?\b[^.\n]*\.?", re.DOTALL
)
_CONNECTIVE = re.compile(
    r"(?:so|thus|therefore|hence|then|finally|in (?:total|conclusion)|approximately|about|roughly|around|it is|that"
    r"|we (?:get|have|find|obtain|conclude)|this (?:gives|means))\b[,:]?\s*",
    re.IGNORECASE,
)
_LINK = re.compile(
    r"\b(?:is|are|be|was|were|equals|get|gives|find|have|has|it's)\b(?: (?:approximately|about|equal to))?:?|=|:"
)
_TEXT = re.compile(r"\\(?:text[a-z]*|mbox|mathrm)\s*\{([^{}]*)\}")
_LONGEST_SENTENCE = 1000
_MOST_MARKS = 20
"""Of longer sentences the end is read, and of more marks of an answer the last ones."""
_TELLING = re.compile(r"\d|\\|[\u03c0\u221a\u221e]|[A-Z][a-z]*")
_NUMBER = re.compile(
    r"(?<![\w.,/^$\\{(])[-+]?(?:\\?\$|[\u20ac\u00a3])?\d[\d,]*(?:\.\d+)?(?:\s\d+/\d+|\s?/\s?\d+)?"
    r"(?:\s?\\?%|\s?[\u20ac\u00a3]|\u00b0)?(?![\w^/]|[.,]\d)"
)
_SENTENCE = re.compile(r"(?<=[.!?])\s+(?=[A-Z$\\])")
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}(?![A-Za-z}])|\u7b54\u6848")
_JOINED = re.compile(
    r"[\s$,;]*(?:\\text\s*\{)?\s*(?:and|or|,|\\(?:quad|qquad)|&)?[\s\}$,;]*(?:\\(?:quad|qquad|,|;|\s))*[\s$]*"
)
_MARKED = re.compile(r"[<#\u7b54]|^(?:so|about|answer|a|ans)\b", re.IGNORECASE)
_WORDY = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}[\s,:]+\S|\n|answer|####|\\f?box|[<\u7b54]", re.IGNORECASE)


def extract_answer(text: str) -> str | None:
    r"""Return the final answer of a solution as text, in canonical form; `None` where it states none.

    Looked for in this order: the last box that is not empty, the last line that begins with `####`, the last `answer
    is` or `Answer:`, a last line that is nothing but a value set apart as mathematics or in bold, and a last sentence
    that draws a conclusion and ends. A text that was cut off, inside its box or elsewhere, has no answer: no number on
    the way to it is one.
    """
    raw = _stated(text)
    if raw is None:
        raw = _last_line(text)
    return None if raw is None or is_left_out(raw) else canonical(raw)


def _stated(text: str) -> str | None:
    """Return what a text says is its answer; an empty text where it was cut off in saying so."""
    if ("\\boxed" in text or "\\fbox" in text) and (found := boxes(text)):
        return found[-1][0]
    if "####" in text:
        for mark in reversed(list(re.finditer(r"^[*_` \t]*#{4,}(.*)$", text, re.MULTILINE))):
            if rest := mark[1].strip(" *_`"):
                return rest
    if _ANSWER.search(text):
        for mark in reversed(list(_ANSWER_IS.finditer(text))[-_MOST_MARKS:]):
            rest = (mark["rest"] or mark["next"] or mark["chinese"] or mark["short"] or "").strip()
            if not rest and mark["rest"] is not None:
                following = text[mark.end() :].lstrip()
                rest = _SPAN.match(following)[0] if _SPAN.match(following) else following.partition("\n")[0]  # type: ignore[index]
            rest = (
                _SENTENCE_END.split(_closed_span(text, mark, rest[:_LONGEST_SENTENCE]), maxsplit=1)[0]
                .strip()
                .strip("*_`")
                .strip()
            )
            rest = rest[:_LONGEST_SENTENCE]
            if inner := _ANSWER_IS.search(rest):  # as in `Final Answer: The final answer is 5`
                rest = (inner["rest"] or "").strip()
            if rest.strip("*_`. "):
                rest = re.split(r",? (?:because|since|which|as) ", rest, maxsplit=1)[0]
                return "" if _CUT_OFF.search(rest) else _concluded(rest)
    return None


def joined_boxes(text: str) -> str | None:
    r"""Return `\boxed{1} and \boxed{2}` at the end of a text as one list; `None` where the last box stands alone."""
    found = boxes(text)
    first = len(found) - 1
    while first > 0 and found[first - 1][0] and _joins(text[found[first - 1][2] : found[first][1]]):
        first -= 1
    return ", ".join(content for content, _, _ in found[first:]) if 0 <= first < len(found) - 1 else None


def _closed_span(text: str, mark: re.Match[str], rest: str) -> str:
    """Return the rest of a line, up to the end of displayed mathematics that begins in it."""
    for opener, closer in (("$$", "$$"), ("\\[", "\\]")):
        if rest.startswith(opener) and closer not in rest[2:]:
            start = text.index(rest, mark.start())
            end = text.find(closer, start + 2)
            return text[start : end + 2] if end > 0 else rest
    return rest


def _joins(between: str) -> bool:
    return len(between) < 60 and bool(_JOINED.fullmatch(between)) and bool(re.search(r"and|or|,|quad|&", between))


def _last_line(text: str) -> str | None:
    lines = text.strip().splitlines()
    if not lines:
        return None
    line = lines[-1].strip()
    if line in ("\\]", "$$") and len(lines) > 1:
        opener = "\\[" if line == "\\]" else "$$"
        inner = " ".join(lines[:-1]).rpartition(opener)[2]
        line = f"{opener}{inner}{line}"
    marked = re.fullmatch(r"([*_`]{1,3})(.+?)\1[.:]?", line)
    bare = marked[2] if marked else line
    if _CUT_OFF.search(bare):
        return None
    set_apart = marked or len(lines) == 1 or line.startswith(("$", "\\(", "\\["))
    value = _value(bare)
    if value is not None and set_apart:
        return bare
    if line.endswith((".", ".**")):
        sentence = _SENTENCE.split(bare)[-1]
        if re.match(r"(?:therefore|thus|hence|so)\b", sentence, re.IGNORECASE):
            return _of_sentence(sentence)
    return None


def _tree(text: str) -> Node | None:
    try:
        return read(plain(text))
    except Unreadable:
        return None


def _names(node: Node) -> bool:
    return (
        node[0] == "var"
        or any(_names(part) for part in node[1:] if isinstance(part, tuple) and part)
        or (isinstance(node[0], tuple) and _names(node[0]))
    )


def _value(text: str) -> Node | None:
    """Return the tree of a text that is a value, or a name and its value, and no computation."""
    node = _tree(text)
    if node is None:
        return None
    if node[0] == "rel" and set(node[2]) == {"="} and (len(node[1]) > 2 or not _names(node)):
        return None
    return node


@lru_cache(maxsize=1024)
def final_answer(text: str) -> str:
    r"""Return the answer that a text given as an answer states, or the text where it states none in particular.

    A sentence may stand around it, `the sum is $5$`; otherwise the text is one.
    """
    if not _WORDY.search(text) or (len(text) < 12 and not _MARKED.search(text)):
        return text
    text = _TAGS.sub(" ", text).strip()
    stated = _stated(text)
    return _concluded(text) if stated is None else stated


def _concluded(text: str) -> str:
    """Return what a text that is an answer as a whole comes to; itself where it is no sentence."""
    bare = _undelimited(text)
    for whole in (text, bare):
        if _tree(whole) is not None:
            return whole
    if not _PROSE.search(text) and not _CONNECTIVE.match(text):
        return text
    told = _TEXT.sub(r"\1", bare).strip()
    if (number := _NUMBER.match(told)) and not is_prose(told[number.end() :], money=False):
        return text  # `5\text{ hours thirty minutes}` is more than 5
    return _of_sentence(_SENTENCE.split(text.strip())[-1]) or text


def _undelimited(text: str) -> str:
    return re.sub(r"(?<!\\)\$", "", text)


def _of_sentence(sentence: str) -> str | None:
    """Return the value that a sentence comes to; `None` where it comes to none."""
    sentence = sentence[-_LONGEST_SENTENCE:]
    while match := _CONNECTIVE.match(sentence):
        sentence = sentence[match.end() :]
    sentence = sentence.strip(" *_")
    bare = _undelimited(sentence)
    if _value(bare) is not None and _TELLING.search(bare):
        return bare
    for link in _LINK.finditer(sentence):
        rest = _undelimited(sentence[link.end() :]).lstrip(" *_").rstrip(" .*_")
        if re.fullmatch(r"[A-Z][a-z]+|\(?[A-J]\)?", rest) or (_TELLING.search(rest) and _value(rest) is not None):
            return rest
    spans = [next(group for group in span.groups() if group is not None) for span in _SPAN.finditer(sentence)]
    values = [span for span in spans if _value(span) is not None and (re.search(r"\d|\\", span) or len(spans) == 1)]
    numbers = [match[0] for match in _NUMBER.finditer(_SPAN.sub(" ", sentence))]
    if values and (len(values) == 1 or sentence.rstrip(" .").endswith(("$", "\\)", "\\]"))) and not numbers:
        return values[-1]
    if len(numbers) == 1 and not values and (_LINK.search(sentence) or len(sentence.split()) > 3):
        return numbers[0]
    match = re.search(rf"(?:{_NUMBER.pattern})(?=\s?[a-zA-Z$]{{0,12}}[.!\s]*$)", sentence)
    return match[0] if match and _LINK.search(sentence[: match.start()]) else None
