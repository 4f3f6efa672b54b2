r"""Final answers: found in a solution, and brought to one spelling."""

from __future__ import annotations

import re
from functools import lru_cache

from ttcjax.text.grading.algebra.answer_parser import read
from ttcjax.text.grading.algebra.latex_tokens import Node, Unreadable
from ttcjax.text.grading.quantities import MAX_ANSWER_CHARS, parse_quantity
from ttcjax.text.grading.spelling import closing, plain

_ANSWER_LINE = re.compile(r"^Answer:[ \t]*(\S.*)$", re.MULTILINE)
_HASH_MARK = re.compile(r"(\*{1,3}|_{1,3}|`{1,3})?#{4,}|^(\*{1,3}|_{1,3}|`{1,3})?A:", re.MULTILINE)
_LINE = re.compile(r"[^\n\r]*")
_BOXED = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
# What stands without braces after `\boxed` is an answer where it is mathematics; else it is the sentence that goes on.
_BARE_BOX = re.compile(r"(?:[-+]?(?:\\?\$)?\.?\d|[-+]?\\[a-zA-Z])(?:(?!\\[)\]])[^\s$`])*|[a-zA-Z](?=\$|\\[)\]])")

# Marks that enclose a text and are no part of it: of mathematics, of emphasis.
_ENCLOSED = (
    re.compile(r"(\$\$?)((?:[^$\\]|\\.)+)\1", re.DOTALL),
    re.compile(r"(\\\()(.+?)\\\)", re.DOTALL),
    re.compile(r"(\\\[)(.+?)\\\]", re.DOTALL),
    re.compile(r"(\*{1,3}|_{1,3}|`{1,3})((?:(?!\1).)+)\1(?![\w*])", re.DOTALL),
)
_BOX = re.compile(_BOXED.pattern + r"(?=\{)")
_FONT = re.compile(
    r"(?:\\(?:text|textrm|textit|textbf|texttt|textsf|emph|mathrm|mathbf|mathit|boldsymbol|bm|mbox|hbox)\s*)?(?=\{)"
)
_SWITCH = re.compile(r"\\(?:displaystyle|textstyle|bf|rm|it)(?![a-zA-Z])\s*")
_BLANK = r"\\[,:;!> ]|\\q?quad(?![a-zA-Z])|\s"
_BLANK_ENDS = re.compile(rf"^(?:{_BLANK})+|(?:{_BLANK}|~)+$|(?<!\\)\\$")
_STOP = re.compile(r"(?<![\\.])[.,;:\u3002]$")
_DOTS = re.compile(r"(?:[.\u2026\s]|\\[a-z]*dots)*")


def extract_answer_line(text: str) -> str | None:
    """Return the canonical answer of the last line `Answer: x`; `None` if there is none."""
    found = _ANSWER_LINE.findall(text)
    return canonical(found[-1]) or None if found else None


def extract_hash_number(text: str) -> str | None:
    """Return the canonical number after the last `####`, or `A:` at the start of a line; `None` if there is none.

    GSM8K's references have the one mark, the models' solutions that were released with it the other. The rest of the
    line must be one number, as `quantities.parse_quantity` reads it: with a currency sign, a unit or words, or none of
    them. A percent sign is a unit: where GSM8K asks for percents, its references are the number alone. Marks of
    emphasis and mathematics around the number are dropped. A mark with nothing after it is passed over.
    """
    for mark in reversed(list(_HASH_MARK.finditer(text))):
        line = _LINE.match(text, mark.end())
        assert line is not None
        rest, opened = line[0].strip(), mark[1] or mark[2]
        if opened:  # as in **A:** 5 and **A: 5**
            rest = rest.removeprefix(opened) if rest.startswith(opened) else rest.rstrip(". ").removesuffix(opened)
        if rest.strip(" \t*_`"):
            value = parse_quantity(_unwrapped(rest), words=True)
            return None if value is None else str(value)
    return None


def extract_boxed(text: str) -> str | None:
    r"""Return the canonical content of the last `\boxed{...}` (MATH); `None` if there is none or it never closes.

    Braces may nest; `\boxed 5`, without braces, is read up to the next space, `$` or end of line. Passed over are boxes
    with nothing or only dots in them, and `\boxed` as a word of a sentence.
    """
    found = boxes(text)
    return canonical(found[-1][0]) if found and found[-1][0] else None


def boxes(text: str) -> list[tuple[str, int, int]]:
    """Return the content of every box that has one, and where it begins and ends; an empty one for a box not closed."""
    found: list[tuple[str, int, int]] = []
    end = 0
    for mark in _BOXED.finditer(text):
        if mark.start() < end:
            continue  # inside another box
        if text.startswith("{", mark.end()):
            closed = closing(text, mark.end())
            if closed is None:
                found.append(("", mark.start(), len(text)))
                continue
            content, end = text[mark.end() + 1 : closed - 1], closed
        elif bare := _BARE_BOX.match(text, mark.end()):
            content = bare[0] if "(" in bare[0] else bare[0].rstrip(").,;:")
            end = mark.end()
        else:
            continue
        if not _DOTS.fullmatch(_in_font(canonical(content))):
            found.append((content, mark.start(), end))
    return found


def _unwrapped(text: str) -> str:
    """Return `text` without the marks that enclose its beginning."""
    while True:
        text = text.strip()
        if match := next((match for pattern in _ENCLOSED if (match := pattern.match(text))), None):
            text = f"{match[2].strip()} {text[match.end() :]}"
        elif (match := _BOX.match(text) or _FONT.match(text)) and (end := closing(text, match.end())):
            text = f"{text[match.end() + 1 : end - 1].strip()} {text[end:]}"
        elif match := _SWITCH.match(text):
            text = text[match.end() :]
        else:
            return text


def canonical(answer: str) -> str:
    r"""Return one spelling for answers that are plainly the same.

    Numbers become a reduced integer or fraction (`1,250.50` -> `2501/2`, `\frac{2}{4}` -> `1/2`, `-0` -> `0`), without
    a currency sign or a unit in `\text{...}`; of other text, marks of emphasis and mathematics around the whole go, a
    stop at its end too, and runs of white space become one space. What has been brought to it once stays as it is.
    """
    text = " ".join(answer.replace("\u2212", "-").split())
    if len(text) > MAX_ANSWER_CHARS:
        return text
    while (bare := _bare(text)) != text:
        text = bare
    inner = text
    while (value := parse_quantity(inner, words=False)) is None:
        # Fonts and braces go only where a number is inside: \text{rat} is a word, rat the product of three variables.
        bare = _bare(_in_font(inner))
        if bare == inner:
            return text
        inner = bare
    return str(value)


def _bare(text: str) -> str:
    """Return `text` without the outermost marks that enclose it and a stop at its end."""
    text = _STOP.sub("", _BLANK_ENDS.sub("", text))
    for pattern in _ENCLOSED:
        if match := pattern.fullmatch(text):
            return match[2].strip()
    if (match := _BOX.match(text)) and closing(text, match.end()) == len(text):
        return text[match.end() + 1 : -1].strip()
    if text.startswith("\\$") or (text.startswith("$") and "$" not in text[1:]):
        return text.removeprefix("\\")[1:].strip()
    return text.strip()


def _in_font(text: str) -> str:
    match = _FONT.match(text)
    if match and closing(text, match.end()) == len(text):
        return text[match.end() + 1 : -1]
    return _SWITCH.sub("", text, count=1) if _SWITCH.match(text) else text


def grade_exact(answer: str | None, gold: str) -> bool:
    """Return whether both have the same canonical form; enough where answers are numbers or fixed text."""
    return answer is not None and canonical(answer) == canonical(gold)


_ANSWER_IS = re.compile(
    r"(?:(?:final|correct)[ \t]+)?answer(?:[ \t]+(?:to[ \t][^.\n:]{1,80}|here))?[ \t*_]*"
    r"(?:[ \t]+(?:is|are|will be|would be|must be|equals)(?![a-z])[ \t]*:?|:|=)[ \t*_]*(?P<rest>[^\n]*)"
    r"|\u7b54\u6848(?:\u662f|\u4e3a|\u70ba|:|\uff1a)[\uff1a: ]*(?P<chinese>[^\n]*)"
    r"|^[*_ \t]*A(?:ns)?:[*_ \t]*(?P<short>[^\n]*)"
    r"|\*{0,3}#*[ \t]*final answer[ \t*_:]*\n+(?P<next>[^\n]*)",
    re.IGNORECASE | re.MULTILINE,
)
_ANSWER = re.compile(r"answer|\u7b54\u6848|^\W*A(?:ns)?:", re.IGNORECASE | re.MULTILINE)
_SENTENCE_END = re.compile(
    r"[.!?](?=\s+(?:[A-Z*]|$))(?<!\d\.)|[.!?](?=\s+(?:[A-Z][a-z]|I\b))|\s*<\||\s+I hope\b|\u3002"
)
_CUT_OFF = re.compile(r"(?:[-+*/=^_<(\[{,&:]|\\(?:frac|cdot|times|sqrt|pm|left|le|ge|text|in|cup))\s*$")
_SPAN = re.compile(
    r"\$\$((?:[^$\\]|\\.)+)\$\$|\$((?:[^$\\\n]|\\.)+)\$|\\\(((?:(?!\\[()]).)+)\\\)|\\\[((?:(?!\\[\[\]]).)+)\\\]",
    re.DOTALL,
)
_CONCLUDES = re.compile(
    r"(?:therefore|thus|hence|so|then|finally|in total|answer|we (?:get|have|find)|is|are|equals|=|:)(?![a-z])", re.I
)
_LAST_VALUE = re.compile(
    r"(?:(?<=\s)|^)(?P<value>[-+]?\(?[-+]?(?:\\?\$|[\u20ac\u00a3])?\d[\d,]*(?:\.\d+)?(?:\s\d+/\d+|\s?/\s?\d+)?\)?"
    r"(?:\s?\\?%|\s?[\u20ac\u00a3$])?(?:\^?\\?circ|\u00b0)?)(?P<unit>\s?[A-Za-z\u00b2\u00b3]{0,14}(?:\s[A-Za-z]{2,12}){0,2})[.!\s*]*$"
)
_PROSE = re.compile(r"(?<![\\A-Za-z{])[A-Za-z]{3,}(?![A-Za-z}])")
_JOINED = re.compile(
    r"[\s$,;]*(?:\\text\s*\{)?\s*(?:and|or|,|\\(?:quad|qquad)|&)?[\s\}$,;]*(?:\\(?:quad|qquad|,|;|\s))*[\s$]*"
)
_WORDY = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{2,}[\s,:]+\S|\n|answer|####|\\f?box", re.IGNORECASE)


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
    if raw is None or not (found := canonical(raw)) or _DOTS.fullmatch(_in_font(found)):
        return None
    return found


def _stated(text: str) -> str | None:
    """Return what a text says is its answer; an empty text where it was cut off in saying so."""
    if ("\\boxed" in text or "\\fbox" in text) and (found := boxes(text)):
        return found[-1][0]
    if "####" in text:
        for mark in reversed(list(re.finditer(r"^[*_`\s]*#{4,}(.*)$", text, re.MULTILINE))):
            if rest := mark[1].strip(" *_`"):
                return rest
    if _ANSWER.search(text):
        for mark in reversed(list(_ANSWER_IS.finditer(text))):
            rest = (mark["rest"] or mark["next"] or mark["chinese"] or mark["short"] or "").strip()
            if not rest and mark["rest"] is not None:
                following = text[mark.end() :].lstrip()
                rest = _SPAN.match(following)[0] if _SPAN.match(following) else following.partition("\n")[0]  # type: ignore[index]
            rest = _SENTENCE_END.split(_closed_span(text, mark, rest), maxsplit=1)[0].strip().strip("*_`").strip()
            if rest.strip("*_`. "):
                return "" if _CUT_OFF.search(rest) else final_answer(rest)
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
    return bool(_JOINED.fullmatch(between)) and bool(re.search(r"and|or|,|quad|&", between))


def _last_line(text: str) -> str | None:
    lines = text.strip().splitlines()
    if not lines:
        return None
    line = lines[-1].strip()
    if line in ("\\]", "$$") and len(lines) > 1:
        opener = "\\[" if line == "\\]" else "$$"
        inner = " ".join(lines[:-1]).rpartition(opener)[2]
        line = f"{opener}{inner}{line}"
    if _CUT_OFF.search(line):
        return None
    bare = line.strip("*_` ")
    set_apart = line != bare or len(lines) == 1 or line.startswith(("$", "\\(", "\\["))
    value = _value(bare)
    if value is not None and set_apart:
        return bare
    if line.endswith((".", ".**")) and re.match(r"(?:therefore|thus|hence|so)\b", bare, re.IGNORECASE):
        found = final_answer(bare)
        return found if found != bare and _value(found) is not None else None
    return None


def _tree(text: str) -> Node | None:
    try:
        return read(plain(text))
    except Unreadable:
        return None


def _value(text: str) -> Node | None:
    """Return the tree of a text that is a value, or a name and its value, and no computation."""
    node = _tree(text)
    if node is None:
        return None
    if node[0] == "rel" and (node[1][0][0] not in ("var", "call") or len(node[1]) > 2):
        return None
    return node


@lru_cache(maxsize=4096)
def final_answer(text: str) -> str:
    r"""Return the answer that a text given as an answer states, or the text where it states none in particular.

    A sentence may stand around it, `the sum is $5$`; what it says last is then the answer. Otherwise the text is one.
    """
    if "#" not in text and (len(text) < 12 or not _WORDY.search(text)):
        return text
    stated = _stated(text)
    if stated is not None:
        return stated
    bare = re.sub(r"(?<!\\)\$", "", text)
    for whole in (text, bare):
        if _tree(whole) is not None:
            return whole
    if not _PROSE.search(text):
        return text
    spans = list(_SPAN.finditer(text))
    if spans:
        last, after = spans[-1], text[spans[-1].end() :].strip()
        inner = next(group for group in last.groups() if group is not None)
        if _value(f"{inner} {after}".strip(" .")) is not None:
            return f"{inner} {after}".strip(" .")
        return inner if _value(inner) is not None and _CONCLUDES.search(text[: last.start()] or "=") else text
    if (value := _LAST_VALUE.search(text)) and _CONCLUDES.search(text[: value.start()]):
        return f"{value['value']}{value['unit']}".strip()
    match = re.search(r"(?:=|\bis|\bare|\bget)\s+([^=]+?)[.\s]*$", text)
    return match[1] if match and _value(match[1]) is not None else text
