"""Expressions read from tokens: sums, products, powers, functions, matrices."""

from __future__ import annotations

import re
from fractions import Fraction

from ttcjax.text.grading.algebra.latex_tokens import Node, Token, Unreadable, number
from ttcjax.text.grading.quantities import SHORT_UNITS, word_set
from ttcjax.text.grading.spelling import MAX_DEPTH

FUNCTIONS = word_set(
    "sin cos tan cot sec csc arcsin arccos arctan arccot arcsec arccsc sinh cosh tanh asin acos atan ln log lg exp",
    "max min gcd lcm arg Re Im sgn",
)
_GREEK = word_set(
    "alpha beta gamma delta epsilon varepsilon zeta eta theta vartheta iota kappa lambda mu nu xi rho varrho sigma",
    "tau upsilon phi varphi chi psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega ell hbar",
)
_NAMED = {
    "pi": ("const", "pi"),
    "infty": ("const", "inf"),
    "inf": ("const", "inf"),
    "infinity": ("const", "inf"),
    "oo": ("const", "inf"),
    "emptyset": ("set",),
    "e": ("const", "e"),
    "i": ("const", "i"),
    "imath": ("const", "i"),
}
_STYLES = word_set(
    "mathbf mathit boldsymbol bm vec hat bar overline underline mathcal mathsf tilde overrightarrow",
)
_PRODUCTS = frozenset(["cdot", "times", "*"])
AND = re.compile(r"\s*,?\s*(?:and|or|&)\s*,?\s*", re.IGNORECASE)
_MOST_FACTORS = 100
"""Longer products are not read: a tree must not be too deep to be walked through."""
_CALLED = word_set("abs floor ceil factorial binom")
_CURRENCIES = word_set("usd eur gbp inr cad aud rs")
_ENGLISH = word_set("so if it we is the let sum for are was has its")
_STARTERS = (
    word_set("{ frac sqrt binom angle triangle lfloor lceil langle mathbb", *_NAMED) | FUNCTIONS | _GREEK | _STYLES
)


class ExpressionReader:
    """A recursive-descent parser over tokens; what stands between brackets is read by a subclass."""

    def __init__(self, tokens: list[Token]):
        self.tokens = tokens
        self.at = 0
        self.depth = 0
        self.bars = 0
        self.sign = 1
        self.split = False

    def more(self) -> bool:
        return self.at < len(self.tokens)

    def peek(self, ahead: int = 0) -> Token:
        place = self.at + ahead
        return self.tokens[place] if place < len(self.tokens) else Token("", "", False)

    def take(self) -> Token:
        token = self.peek()
        self.at += 1
        return token

    def is_op(self, *values: str, ahead: int = 0) -> bool:
        token = self.peek(ahead)
        return token.kind in ("op", "cmd") and token.value in values

    def expect(self, *values: str) -> str:
        if not self.is_op(*values):
            raise Unreadable(f"{self.peek().value!r} where one of {values} is due")
        return self.take().value

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable("nested too deeply")

    def _opens(self, ahead: int) -> bool:
        return self.is_op("(", "[", "{", ahead=ahead) or self.is_op("mathbb", "emptyset", ahead=ahead)

    def sum(self) -> Node:
        terms: list[Node] = []
        negative = self.signed()
        while True:
            term = self.product()
            terms.append(("neg", term) if negative else term)
            if self.is_op("+", "-", "pm", "mp"):
                negative = self.signed()
            else:
                break
        return terms[0] if len(terms) == 1 else ("add", *terms)

    def signed(self) -> bool:
        negative = False
        while self.is_op("+", "-", "pm", "mp", "$"):
            sign = self.take().value
            if sign in ("pm", "mp"):
                self.split = True
                negative ^= (self.sign < 0) == (sign == "pm")
            else:
                negative ^= sign == "-"
        return negative

    def product(self) -> Node:
        node = self.power()
        for _ in range(_MOST_FACTORS):
            if not self.more():
                break
            if self.is_op(*_PRODUCTS):
                self.take()
                node = ("mul", node, self.factor())
            elif self.is_op("/", "div") and self.peek(1).kind != "text":
                self.take()
                node = ("div", node, self.factor())
            elif self.starts_factor():
                last = self.tokens[self.at - 1]
                if self.peek().kind == "num" and last.kind == "num":
                    if not self.peek().spaced or (node[0] != "num" and not self.is_op("^", "**", ahead=-2)):
                        raise Unreadable("two numbers side by side")
                    node = self.mixed(node) if node[0] == "num" else ("mul", node, self.power())
                    continue
                if self.peek().kind == "num" and last.kind not in ("op", "cmd"):
                    raise Unreadable("a number right after a letter")
                node = ("mul", node, self.power())
            else:
                break
        else:
            raise Unreadable("too many factors")
        return node

    def mixed(self, whole: Node) -> Node:
        """Return a mixed number whose fraction comes next, `1 1/2` or `1\\frac{1}{2}`."""
        above = self.take().value
        self.expect("/")
        below = self.take()
        if below.kind != "num" or whole[2] is not None or above[2] is not None or below.value[2] is not None:
            raise Unreadable("two numbers side by side")
        if not 0 <= above[1] < below.value[1]:
            raise Unreadable("no mixed number")
        return ("num", whole[1] + above[1] / below.value[1], None)

    def factor(self) -> Node:
        negative = False
        while self.is_op("-", "+"):
            negative ^= self.take().value == "-"
        return ("neg", self.power()) if negative else self.power()

    def starts_factor(self) -> bool:
        token = self.peek()
        if token.kind in ("num", "begin"):
            return True
        if token.kind == "word":
            if token.value == "U" and self._opens(1) and self.tokens[self.at - 1].value in (")", "]", "}"):
                return False  # a union
            return self.is_mathematics(token)
        if token.kind == "op":
            return token.value in "([{" or (token.value == "|" and not self.bars)
        if token.kind == "cmd":
            if token.value == "mathrm" or token.value == "operatorname":
                return self._roman() in (*FUNCTIONS, "e", "i", "d")
            return token.value in _STARTERS or (token.value == "|" and not self.bars)
        return False

    def _roman(self) -> str:
        if self.is_op("{", ahead=1) and self.peek(2).kind == "word" and self.is_op("}", ahead=3):
            return self.peek(2).value
        return self.peek(1).value if self.peek(1).kind == "word" else ""

    def is_mathematics(self, token: Token) -> bool:
        """Return whether a run of letters is a name or a product of variables, and no word."""
        word = token.value
        if len(word) == 1 or word in FUNCTIONS or word in _NAMED or word in _GREEK or word == "sqrt":
            return True
        if word in _CALLED and self.is_op("(", ahead=1):
            return True
        if word in ("and", "or") or len(word) > 3 or word.lower() in _CURRENCIES | _ENGLISH:
            return False
        if self.at == 0 or not token.spaced:
            return word not in SHORT_UNITS or self.at == 0 or self.is_op("^", "**", "+", "-", "(", ahead=1)
        return word not in SHORT_UNITS and set(word).isdisjoint("aeiouy")

    def power(self) -> Node:
        node = self.postfix()
        for _ in range(MAX_DEPTH):
            if not self.is_op("^", "**"):
                break
            self.take()
            if self.is_degree():
                node = ("deg", node)
                if self.peek().kind == "word" and self.peek().value in ("C", "F"):
                    self.take()
            elif self.is_op("prime", "'"):
                self.take()
                node = ("var", f"{self.name(node)}'")
            else:
                node = ("pow", node, self.exponent())
            node = self.after(node)
        return node

    def is_degree(self) -> bool:
        for length, braced in ((1, False), (3, True)):
            if self.is_op("circ", ahead=int(braced)) and (not braced or (self.is_op("{") and self.is_op("}", ahead=2))):
                self.at += length
                return True
        return False

    def exponent(self) -> Node:
        self.deeper()
        if self.is_op("-", "+"):
            node: Node = ("neg", self.exponent()) if self.take().value == "-" else self.exponent()
        else:
            node = self.postfix()
        self.depth -= 1
        return node

    def postfix(self) -> Node:
        return self.after(self.primary())

    def after(self, node: Node) -> Node:
        """Return what was read with the signs right after it: factorials, percent, primes, subscripts, degrees."""
        for _ in range(MAX_DEPTH):
            if not self.more():
                break
            if self.is_op("!"):
                self.take()
                node = ("fact", node)
            elif (
                self.is_op("%")
                or (self.peek().kind == "word" and self.peek().value.lower() in ("percent", "percentage", "pct"))
                or (self.peek().kind == "text" and self.peek().value.strip().lower() in ("percent", "%", r"\%"))
            ):
                self.take()
                node = ("pct", node)
            elif self.is_op("'") and node[0] == "var":
                self.take()
                node = ("var", f"{node[1]}'")
            elif self.is_op("_"):
                self.take()
                node = self.subscript(node)
            elif self.is_op("circ"):
                self.take()
                node = ("deg", node)
            else:
                break
        return node

    def subscript(self, node: Node) -> Node:
        inner = self.raw()
        if node[0] == "num":
            if not inner.isdigit() or node[2] is not None or node[1].denominator != 1:
                raise Unreadable("a subscript of a number")
            return ("base", str(node[1]), int(inner))
        return ("var", f"{self.name(node)}_{{{inner}}}")

    @staticmethod
    def name(node: Node) -> str:
        if node[0] != "var" and node[0] != "const":
            raise Unreadable("a mark on what is no variable")
        return str(node[1])

    def raw(self) -> str:
        """Return the next token, or group in braces, as text."""
        if not self.is_op("{"):
            token = self.take()
            if token.kind not in ("num", "word", "cmd"):
                raise Unreadable("no script")
            return self._shown(token)
        self.take()
        parts: list[str] = []
        while not self.is_op("}"):
            if not self.more() or self.is_op("{"):
                raise Unreadable("braces in a name")
            parts.append(self._shown(self.take()))
        self.take()
        return "".join(parts)

    @staticmethod
    def _shown(token: Token) -> str:
        return str(token.value[1]) if token.kind == "num" else str(token.value)

    def primary(self) -> Node:
        self.deeper()
        node = self._primary()
        self.depth -= 1
        return node

    def _primary(self) -> Node:
        token = self.take()
        if token.kind == "num":
            return self.numeral(token.value)
        if token.kind == "word":
            return self.word(token)
        if token.kind == "text":
            return self.textual(token)
        if token.kind == "begin":
            return self.matrix(token.value)
        if token.kind in ("op", "cmd"):
            if token.value in ("(", "[", "langle"):
                return self.bracket(token.value)
            if token.value == "{":
                return self.braces(token.kind == "cmd")
            if token.value == "|":
                return self.between_bars()
            if token.value == "$":
                return self.primary()
            if token.kind == "cmd":
                return self.command(token.value)
        raise Unreadable(f"{token.value!r} at a place for a number")

    def numeral(self, node: Node) -> Node:
        if self.is_op("...", "..", "ldots", "dots", "cdots"):
            raise Unreadable("digits are left out")
        # A whole number right before a proper fraction of numbers is a mixed number.
        if self.is_op("frac") and node[2] is None:
            start = self.at
            self.take()
            above, below = self.argument(), self.argument()
            if above[0] == below[0] == "num" and above[2] is None and below[2] is None and 0 < above[1] < below[1]:
                return ("num", node[1] + above[1] / below[1], None)
            self.at = start
        return node

    def word(self, token: Token) -> Node:
        word = token.value
        if word == "sqrt":
            return ("pow", self.argument(), ("num", Fraction(1, 2), None))
        if word in _CALLED and self.is_op("("):
            arguments = self.arguments()
            return ("fact", *arguments) if word == "factorial" and len(arguments) == 1 else ("call", word, *arguments)
        if word in FUNCTIONS:
            return self.function(word)
        if word in _NAMED:
            return _NAMED[word]
        if word in _GREEK:
            return ("var", f"\\{word}")
        if len(word) == 1:
            return self.variable(word)
        if len(word) > 3 or word.lower() in _ENGLISH:
            raise Unreadable(word)
        # A product of variables; what follows, such as an exponent, belongs to the last one.
        self.at -= 1
        self.tokens[self.at : self.at + 1] = [Token("word", c, False) for c in word]
        return self.primary()

    def variable(self, word: str) -> Node:
        """Return a variable, or the value of a function f, also of its derivative or inverse."""
        at, mark = self.at, ""
        while self.is_op("'"):
            self.take()
            mark += "'"
        if self.is_op("^") and self.is_op("{", ahead=1) and self.is_op("-", ahead=2) and self.is_op("}", ahead=4):
            self.at += 5
            mark += "^{-1}"
        known = word in "fgFG" or (word in "hyPQ" and mark)
        if known and self.is_op("(") and not self.peek().spaced:
            return ("call", word + mark, *self.arguments())
        self.at = at
        return ("var", word)

    def textual(self, token: Token) -> Node:
        words = " ".join(token.value.split())
        while self.peek().kind == "text" and not AND.fullmatch(self.peek().value):
            words += f" {self.take().value.strip()}"
        if len(words) == 1 and words.isalpha() and self.more() and not self.is_op(",", ")"):
            return ("var", words)
        if self.more() and not self.is_op(",", ";", ")", "]", "}", ".") and not self.peek().kind == "text":
            raise Unreadable(words)
        return ("text", words)

    def argument(self) -> Node:
        """Return the argument of a command: a group in braces or brackets, or one digit or sign."""
        if self.is_op("{"):
            self.take()
            node = self.sum()
            self.expect("}")
            return node
        if self.peek().kind == "num":
            node = self.peek().value
            digits = str(node[1])
            if node[2] is None and len(digits) > 1 and self.at > 0 and self.tokens[self.at - 1].value == "frac":
                self.tokens[self.at : self.at + 1] = [Token("num", number(c), False) for c in digits]
            return self.take().value
        return self.postfix()

    def function(self, name: str) -> Node:
        power: Node | None = None
        base: Node | None = None
        while self.is_op("^", "_", "**"):
            if self.take().value == "_":
                base = self.argument()
            else:
                power = self.exponent()
        arguments = self.arguments() if self.is_op("(") else [self.operand()]
        if power == ("neg", ("num", 1, None)):
            name, power = f"arc{name}", None
        if base is not None:
            if name != "log":
                raise Unreadable(f"a base of {name}")
            node: Node = ("div", ("call", "ln", *arguments), ("call", "ln", base))
        elif name == "exp":
            node = ("pow", ("const", "e"), arguments[0])
        else:
            node = (
                "call",
                {"asin": "arcsin", "acos": "arccos", "atan": "arctan", "lg": "log"}.get(name, name),
                *arguments,
            )
        return node if power is None else ("pow", node, power)

    def operand(self) -> Node:
        """Return the argument of a function without brackets: factors side by side, up to the next function."""
        node = self.power()
        while self.starts_factor() and not self.is_op("(", "["):
            token = self.peek()
            if token.value in FUNCTIONS or (token.kind == "num" and self.tokens[self.at - 1].kind == "num"):
                break
            node = ("mul", node, self.power())
        if self.is_op("/", "div") and self.peek(1).kind == "num":
            self.take()
            node = ("div", node, self.power())
        return node

    def command(self, name: str) -> Node:
        if name == "frac":
            above = self.argument()
            if self.peek().kind == "num":  # as in \frac{1}23
                digits = str(self.peek().value[1])
                if self.peek().value[2] is None and len(digits) > 1:
                    self.tokens[self.at : self.at + 1] = [Token("num", number(c), False) for c in digits]
            return ("div", above, self.argument())
        if name == "sqrt":
            index: Node = ("num", Fraction(2), None)
            if self.is_op("["):
                self.take()
                index = self.sum()
                self.expect("]")
            return ("pow", self.argument(), ("div", ("num", Fraction(1), None), index))
        if name in ("binom", "choose"):
            return ("call", "binom", self.argument(), self.argument())
        if name in FUNCTIONS:
            return self.function(name)
        if name in _NAMED:
            return _NAMED[name]
        if name in _GREEK:
            return ("var", f"\\{name}")
        if name in ("lfloor", "lceil"):
            node = self.sum()
            self.expect(name.replace("l", "r", 1))
            return ("call", "floor" if name == "lfloor" else "ceil", node)
        if name in ("mathrm", "operatorname"):
            return self.roman()
        if name == "mathbb":
            return ("var", f"\\mathbb{{{self.raw()}}}")
        if name in _STYLES:
            return ("var", f"\\{name}{{{self.raw()}}}")
        if name in ("angle", "triangle"):
            return ("var", f"\\{name} {self.raw()}")
        raise Unreadable(f"\\{name}")

    def roman(self) -> Node:
        word = self.raw()
        if word in FUNCTIONS:
            return self.function(word)
        if word in ("e", "i"):
            return _NAMED[word]
        if len(word) == 1:
            return ("var", word)
        return self.textual(Token("text", word, False))

    def between_bars(self) -> Node:
        self.bars += 1
        node = self.sum()
        self.expect("|")
        self.bars -= 1
        return ("call", "abs", node)

    def matrix(self, name: str) -> Node:
        if name == "cases":
            return self.system()
        if name not in ("pmatrix", "bmatrix", "matrix", "array", "smallmatrix", "Bmatrix"):
            raise Unreadable(f"\\begin{{{name}}}")
        rows: list[list[Node]] = [[]]
        while True:
            if self.peek().kind == "end":
                break
            if self.is_op("hline"):
                self.take()
                continue
            rows[-1].append(self.units(self.sum()))
            if self.is_op("&"):
                self.take()
            elif self.is_op("\\"):
                self.take()
                while self.is_op("\\"):
                    self.take()
                rows.append([])
            elif self.peek().kind != "end":
                raise Unreadable("a matrix that does not end")
        self.take()
        rows = [row for row in rows if row]
        if not rows or len({len(row) for row in rows}) > 1:
            raise Unreadable("rows of different lengths")
        return ("matrix", tuple(tuple(row) for row in rows))

    def system(self) -> Node:
        """Return equations, one a row, after their beginning was taken."""
        rows: list[Node] = []
        while self.peek().kind != "end":
            rows.append(self.relation())
            while self.is_op("\\", ",", "&"):
                self.take()
        self.take()
        return ("list", *rows)

    def relation(self) -> Node:
        """Return an expression, or an equation or inequality of some."""
        raise NotImplementedError

    def bracket(self, opener: str) -> Node:
        """Return what stands between a bracket that was just taken and its end."""
        raise NotImplementedError

    def braces(self, is_set: bool) -> Node:
        """Return what stands between a brace that was just taken and its end."""
        raise NotImplementedError

    def arguments(self) -> list[Node]:
        """Return the arguments of a function, in round brackets."""
        raise NotImplementedError

    def units(self, node: Node) -> Node:
        """Return an entry of a matrix with the unit that follows it."""
        raise NotImplementedError
