"""The process behind `worker.SymbolicWorker`; run as a script, it imports nothing of ttcjax.

Reads one JSON object a line with `answer`, `gold`, `timeout` (seconds) and `exact`, and replies with one byte each:
`1` for the same, `0` for not. The byte `r` at the start says that imports are done. It ends with its standard input;
the signals that end a group of processes are for its parent.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

MEMORY_BYTES = 4 << 30

_DIGITS = 4000
"""Numbers that agree to so many digits are equal where nothing tells them apart."""
_DECIMALS, _SMALL, _LARGE = 5e-7, 5e-6, 1e-9
"""What two numbers may differ by where one was written as a decimal: half a unit of the sixth decimal; of small numbers
half a unit of the sixth digit, relative to the number; of large ones, relative too, what is beyond nine digits."""


def _limit_memory() -> None:
    try:
        import resource
    except ImportError:  # not a POSIX system
        return
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, resource.getrlimit(resource.RLIMIT_AS)[1]))


def _limit_cpu(seconds: float) -> None:
    # The kernel ends a comparison that outlives a parent killed before it could end this process.
    try:
        import resource
    except ImportError:
        return
    usage = resource.getrusage(resource.RUSAGE_SELF)
    limit = int(usage.ru_utime + usage.ru_stime + seconds) + 2
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def make_exact(grader: Any) -> None:
    """Replace math-verify's comparison of numbers: by it 10^-20 and 10^-21 are equal, for their difference is small.

    Everything else that math-verify compares (tuples, sets, intervals, matrices, equations) comes down to these.

    Args:
        grader: The module `math_verify.grader`.
    """
    symbolic, solve = grader.sympy_symbolic_eq, grader.sympy_solve_and_compare

    def numeric(a: Any, b: Any, *_: int) -> bool:
        try:
            return same_value(a, b)
        except Exception:  # sets and relations have no difference, some functions no digits; simplification may tell
            return False

    def solved(gold: Any, answer: Any, *tolerances: int) -> bool:
        # Two equations without a solution are not the same for that.
        return bool(grader.solve(gold, gold.free_symbols)) and solve(gold, answer, *tolerances)

    grader.sympy_numeric_eq = numeric
    grader.sympy_symbolic_eq = lambda a, b: symbolic(_exact(a), _exact(b))
    grader.sympy_solve_and_compare = solved


def same_value(a: Any, b: Any) -> bool:
    """Return whether two sympy expressions or matrices have the same value.

    Exact numbers are compared exactly, and so are those written as decimals, first; then decimals may be rounded. The
    coefficients of variables are compared like numbers. `False` may also mean that this cannot tell.
    """
    from sympy import Float, MatrixBase, MatrixExpr

    if isinstance(a, (MatrixBase, MatrixExpr)) or isinstance(b, (MatrixBase, MatrixExpr)):
        a, b = a.doit(), b.doit()
        if not (isinstance(a, MatrixBase) and isinstance(b, MatrixBase) and a.shape == b.shape):
            return False
        return all(same_value(x, y) for x, y in zip(a.flat(), b.flat(), strict=True))
    percent_a, percent_b = _percent(a), _percent(b)
    # A percent sign is a unit to some and a factor to others: 20% is 20 as well as 1/5.
    if percent_a is not None:
        other = b if percent_b is None else percent_b
        return same_value(percent_a, other) or (percent_b is None and same_value(percent_a / 100, other))
    if percent_b is not None:
        return same_value(b, a)
    rounded = bool(a.atoms(Float) or b.atoms(Float))
    a, b = _evaluated(_exact(a)), _evaluated(_exact(b))
    if all(map(_is_zero, _coefficients(a - b).values())):
        return True
    if not rounded:
        return False
    left, right = _coefficients(a), _coefficients(b)
    return all(_is_close(left.get(key, 0), right.get(key, 0)) for key in {*left, *right})


def _percent(expression: Any) -> Any:
    """Return what stands before a percent sign; `None` where there is none."""
    from sympy import Mul, Rational, UnevaluatedExpr

    args = expression.args
    if isinstance(expression, Mul) and len(args) == 2 and args[1] == UnevaluatedExpr(Rational(1, 100)):
        return args[0]
    return None


def _exact(expression: Any) -> Any:
    """Return the expression with decimals as what their digits say."""
    from sympy import Float, Rational

    return expression.xreplace({number: Rational(str(number)) for number in expression.atoms(Float)})


def _evaluated(expression: Any) -> Any:
    from sympy import Derivative, Integral, Limit, Product, Sum

    return expression if expression.has(Derivative, Integral, Limit, Product, Sum) else expression.doit()


def _coefficients(expression: Any) -> dict[Any, Any]:
    """Return the coefficients of a sum by what they stand at: variables and their powers, or 1."""
    from sympy import Add

    found: dict[Any, Any] = {}
    for term in Add.make_args(expression):
        coefficient, rest = term.as_independent(*expression.free_symbols, as_Add=False)
        found[rest] = found.get(rest, 0) + coefficient
    return found


def _is_zero(number: Any) -> bool:
    from sympy import sympify

    number = sympify(number)
    if number.is_Rational:
        return bool(number == 0)
    if not number.is_number or not number.is_finite:
        return False
    parts = number.evalf(15, maxn=_DIGITS).as_real_imag()
    # A digit that could be made out at all is one of a number that is not 0.
    return all(part == 0 or (part.is_Float and part._prec == 1) for part in parts)


def _is_close(a: Any, b: Any) -> bool:
    from sympy import sympify

    a, b = (sympify(x).evalf(30) for x in (a, b))
    size, distance = max(abs(a), abs(b)), abs(a - b)
    return bool(distance <= max(min(_SMALL * size, _DECIMALS), _LARGE * size))


def main() -> None:
    for name in ("SIGINT", "SIGTERM"):
        signal.signal(getattr(signal, name), signal.SIG_IGN)
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb", buffering=0)
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # a library's prints are no replies
    _limit_memory()
    from math_verify import LatexExtractionConfig, grader, parse, verify

    symbolic, numeric, solved = grader.sympy_symbolic_eq, grader.sympy_numeric_eq, grader.sympy_solve_and_compare
    make_exact(grader)
    exact = grader.sympy_symbolic_eq, grader.sympy_numeric_eq, grader.sympy_solve_and_compare
    # Only the LaTeX grammar: math-verify's reader of plain expressions ends in Python's eval.
    target = [LatexExtractionConfig(try_extract_without_anchor=False, boxed_match_priority=0)]

    def same(answer: str, gold: str) -> bool:
        parsed_gold, parsed_answer = (
            parse(f"\\boxed{{{text}}}", extraction_config=target, parsing_timeout=None)  # type: ignore[arg-type]
            for text in (gold, answer)
        )
        return bool(parsed_gold and parsed_answer) and verify(parsed_gold, parsed_answer, timeout_seconds=None)

    replies.write(b"r")
    for line in sys.stdin.buffer:
        request = json.loads(line)
        _limit_cpu(request["timeout"])
        chosen = exact if request.get("exact", True) else (symbolic, numeric, solved)
        grader.sympy_symbolic_eq, grader.sympy_numeric_eq, grader.sympy_solve_and_compare = chosen
        try:
            verdict = same(request["answer"], request["gold"])
        except Exception:  # whatever sympy cannot digest is no proof of equality
            verdict = False
        replies.write(b"1" if verdict else b"0")


if __name__ == "__main__":
    main()
