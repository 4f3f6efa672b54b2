r"""One spelling for what is written in many: Unicode, LaTeX for the eye, escapes doubled on the way."""

from __future__ import annotations

import re
import unicodedata

MAX_DEPTH = 20
"""Deeper nested brackets are not read."""

_SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱ", "0123456789+-()ni", strict=True))
_SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉₊₋₍₎", "0123456789+-()", strict=True))
_SIGNS = {
    "√": r"\sqrt ", "∛": r"\sqrt[3] ", "π": r"\pi ", "∞": r"\infty ", "∪": r"\cup ", "∩": r"\cap ", "×": r"\times ",
    "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "•": r"\cdot ", "÷": r"\div ", "−": "-", "–": "-", "—": "-",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "±": r"\pm ",
    "∓": r"\mp ", "°": r"^\circ ", "º": r"^\circ ", "∈": r"\in ", "∅": r"\emptyset ", "⌀": r"\emptyset ",
    "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}", "ℕ": r"\mathbb{N}", "ℚ": r"\mathbb{Q}", "ℂ": r"\mathbb{C}",
    "⟨": r"\langle ", "⟩": r"\rangle ", "〈": r"\langle ", "〉": r"\rangle ", "∠": r"\angle ", "△": r"\triangle ",
    "⌊": r"\lfloor ", "⌋": r"\rfloor ", "⌈": r"\lceil ", "⌉": r"\rceil ", "′": "'", "’": "'", "‘": "'",
    "∖": r"\setminus ",
    "…": r"\ldots ", "²": "^{2}", "³": "^{3}", "→": r"\to ", "⇒": r"\Rightarrow ", "：": ":", "，": ",", "。": ".",
}  # fmt: skip
_GREEK_NAMES = (
    "alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi omicron pi rho varsigma sigma tau "
    "upsilon phi chi psi omega "
)
_GREEK = {chr(0x3B1 + i): name for i, name in enumerate(_GREEK_NAMES.split())}
_GREEK |= {"Δ": "Delta", "Θ": "Theta", "Σ": "Sigma", "Ω": "Omega", "Φ": "Phi", "Γ": "Gamma", "ϕ": "phi", "ε": "epsilon"}
_FOREIGN = re.compile(r"[^\x00-\x7f]+")

# What became of `\frac`, `\boxed`, `\times` and their like where an escape was taken for a control character.
_CONTROLS = {"\x0c": "\\f", "\x08": "\\b", "\x07": "\\a", "\x0b": "\\v"}
_CONTROL = re.compile(
    r"[\x07\x08\x0b\x0c]|\t(?=ext|imes|frac|an[ {(]|heta|riangle|o )|\r(?=ight|ho[ }]|angle)|\n(?=eq |e |eq\d)"
)
_DOUBLED = re.compile(r"\\\\(?=[a-zA-Z{}%$,!;:()\[\]])")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|,(?:\s*\\!)+\s*|\s*\{\s*,\s*\}\s*)(?=\d{3}(?!\d))")
_SPACED_THOUSANDS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:(?:\\[,;: ]|~|[\u2009\u202f\u00a0])\d{3})+(?!\d)")
_NOTHING = re.compile(
    r"\\(?:left|right|bigg?[lrm]?|Bigg?[lrm]?|displaystyle|textstyle|scriptstyle|limits|nolimits|hfill|mathstrut|strut"
    r"|allowbreak|nobreak|middle)(?![a-zA-Z])|\\!|\\(?:phantom|hspace|vspace|label|tag)\*?\s*(?:\{[^{}]*\}|[^\s{])"
)
_EMPTY_BOUND = re.compile(r"\\(?:left|right)\s*\.")
_SPACE = re.compile(
    r"\\(?:quad|qquad|thinspace|medspace|thickspace|enspace|space|newline)(?![a-zA-Z])|(?<!\\)\\[,;:> \n]|~"
)
_OLD = re.compile(r"\\(?:[dtc]frac|[dt]binom|lbrace|rbrace|leqq?|leqslant|geqq?|geqslant|neq|lt|gt|varnothing|lvert"
                  r"|rvert|vert|ast|star|degree|dollar|to|textdollar|cdotp|mbox|textrm|textnormal|textsf|texttt|textup"
                  r"|textbf|textit|hbox|operatorname\*)(?![a-zA-Z])")  # fmt: skip
_NEW = {
    "dfrac": r"\frac", "tfrac": r"\frac", "cfrac": r"\frac", "dbinom": r"\binom", "tbinom": r"\binom",
    "lbrace": r"\{", "rbrace": r"\}", "leq": r"\le ", "leqq": r"\le ", "leqslant": r"\le ", "geq": r"\ge ",
    "geqq": r"\ge ", "geqslant": r"\ge ", "neq": r"\ne ", "lt": "<", "gt": ">", "varnothing": r"\emptyset ",
    "lvert": "|", "rvert": "|", "vert": "|", "ast": "*", "star": "*", "degree": r"^\circ ", "dollar": r"\$",
    "textdollar": r"\$", "to": r"\to ", "cdotp": r"\cdot ", "operatorname*": r"\operatorname",
}  # fmt: skip

_WRAPPERS = (
    re.compile(r"\$\$((?:[^$\\]|\\.)+)\$\$", re.DOTALL),
    re.compile(r"\$((?:[^$\\]|\\.)+)\$", re.DOTALL),
    re.compile(r"\\\(((?:(?!\\[()]).)+)\\\)", re.DOTALL),
    re.compile(r"\\\[((?:(?!\\[\[\]]).)+)\\\]", re.DOTALL),
    re.compile(r"\*\*((?:(?!\*\*).)+)\*\*", re.DOTALL),
    re.compile(r"`([^`]+)`"),
    re.compile(r'"([^"]+)"'),
)
_END = re.compile(r"(?<![\\.])[.,;:?]$|(?<!\\)\\$|\\\\$")


def closing(text: str, start: int) -> int | None:
    """Return the place after the brace that closes the one at `start`; `None` where none does."""
    depth, i = 0, start
    while i < len(text):
        if text[i] == "\\":
            i += 1  # an escaped brace neither opens nor closes
        elif text[i] == "{":
            depth += 1
        elif text[i] == "}":
            depth -= 1
            if depth == 0:
                return i + 1
        i += 1
    return None


def plain(text: str) -> str:
    r"""Return an answer in one spelling: LaTeX in ASCII, without delimiters, without what only moves ink.

    `\left`, `\dfrac`, `\!`, `$...$` and their like go, `√`, `π`, `½`, `²` become LaTeX, backslashes that were escaped
    twice are halved, and so are thousands that are separated by anything but a bare comma or space joined.
    """
    text = text.strip(" \n")
    if not text.isprintable():
        text = _CONTROL.sub(lambda match: _CONTROLS.get(match[0]) or repr(match[0])[1:-1], text).strip()
    text = text if text.isascii() else _ascii(text)
    text = _halved(text)
    text = _THOUSANDS.sub("", text.replace("\\text{,}", "{,}"))
    text = re.sub(r"(?<=\d)\{,\}(?=\d)", ",", text)
    text = _SPACED_THOUSANDS.sub(lambda match: re.sub(r"\D", "", match[0]), text)
    if "\\" in text:
        text = _EMPTY_BOUND.sub(" ", text)
        text = _NOTHING.sub("", text)
        text = _OLD.sub(lambda match: _NEW.get(match[0][1:], r"\text"), text)
    text = re.sub(r"^(?:USD|EUR|GBP|INR|CAD|AUD|Rs\.?)(?=[\s\d])\s*", "", text)
    while (bare := unwrapped(text)) != text:
        text = bare
    if "\\" in text or "~" in text:
        text = _SPACE.sub(" ", text)
    return " ".join(text.split())


def unwrapped(text: str) -> str:
    """Return `text` without the outermost pair of delimiters around all of it, and without punctuation at its end."""
    text = _END.sub("", text.strip()).strip()
    for pattern in _WRAPPERS:
        if match := pattern.fullmatch(text):
            return match[1].strip()
    if (match := re.match(r"\\(?:boxed|fbox)\s*(?=\{)", text)) and closing(text, match.end()) == len(text):
        return text[match.end() + 1 : -1].strip()
    if text.startswith("{") and closing(text, 0) == len(text) and "," not in text:
        return text[1:-1].strip()
    return text


def _halved(text: str) -> str:
    if "\\\\" not in text:
        return text
    if "\\begin" not in text:
        return _DOUBLED.sub(r"\\", text).replace("\\\\", " ")
    return text.replace("\\\\", "\\") if "\\\\begin" in text else text


def _ascii(text: str) -> str:
    text = "".join(_SIGNS.get(c, c) if c in _SIGNS else _letter(c) for c in text)
    for table, mark in ((_SUPERSCRIPTS, "^"), (_SUBSCRIPTS, "_")):
        signs = "".join(table)
        text = re.sub(f"[{signs}]+", lambda m, t=table, s=mark: f"{s}{{{''.join(t[c] for c in m[0])}}}", text)
    return text


def _letter(char: str) -> str:
    if char < "\x80" or char in _SUPERSCRIPTS or char in _SUBSCRIPTS:
        return char
    if char in _GREEK:
        return f"\\{_GREEK[char]} "
    if unicodedata.category(char) == "No":
        above, _, below = unicodedata.normalize("NFKC", char).partition("\u2044")
        if above.isdigit() and below.isdigit():
            return rf"\frac{{{above}}}{{{below}}}"
    if unicodedata.category(char) == "Zs":
        return char if char in "\u2009\u202f\u00a0" else " "
    if unicodedata.category(char) == "Cf":
        return ""
    if unicodedata.category(char) == "Sc":
        return r"\$"
    normal = unicodedata.normalize("NFKC", char)
    return normal if normal.isascii() else char
