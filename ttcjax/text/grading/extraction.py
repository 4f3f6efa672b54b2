r"""Final answers: found in a solution, and brought to one spelling."""

from __future__ import annotations

import re

from ttcjax.text.grading.quantities import MAX_ANSWER_CHARS, parse_quantity
from ttcjax.text.grading.spelling import closing

_ANSWER_LINE = re.compile(r"^Answer:[ \t]*(\S.*)$", re.MULTILINE)
_HASH_MARK = re.compile(r"(\*{1,3}|_{1,3}|`{1,3})?#{4,}|^(\*{1,3}|_{1,3}|`{1,3})?A:", re.MULTILINE)
_LINE = re.compile(r"[^\n\r]*")
_BOXED = re.compile(r"\\(?:boxed|fbox)(?![a-zA-Z])\s*")
_MOST_BOXES = 100
"""Of more boxes in a text the last ones are read."""
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
    for mark in list(_BOXED.finditer(text))[-_MOST_BOXES:]:
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
        if not is_left_out(content):
            found.append((content, mark.start(), end))
    return found


def is_left_out(content: str) -> bool:
    """Return whether there is nothing in a text, or dots alone."""
    return bool(_DOTS.fullmatch(_in_font(canonical(content))))


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
