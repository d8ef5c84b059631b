"""Guards: whether a step runs.

::

    expr := and ( "||" and )*          and := not ( "&&" not )*
    not  := "!" not | cmp              cmp := prim ( ("=="|"!="|">="|"<="|">"|"<") prim )?
    prim := "(" expr ")" | {ref} | "text" | 'text' | number | true | false | null | bareword
"""

import json
import math
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from goalrun.core.flow.refs import PLACEHOLDER, Lookup, Ref
from goalrun.core.value import Json

MAX_CHARS = 10_000
MAX_DEPTH = 50
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
_TOKEN = re.compile(
    rf"""\s*(?:(?P<ref>{PLACEHOLDER.pattern})
    |(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*')
    |(?P<sign>\|\||&&|[=!<>]=|[!<>()])
    |(?P<number>{_NUMBER})
    |(?P<word>[^\s&|!=<>()"'{{}}]+))""",
    re.VERBOSE | re.DOTALL,
)
_SIGNS = ("==", "!=", ">=", "<=", ">", "<")
_FALSE = frozenset({"", "false", "0", "no", "off", "null"})
_WORDS: dict[str, Json] = {"true": True, "false": False, "null": None}
_Value = Callable[[Lookup], Json]


class WhenError(ValueError):
    """A guard that cannot be read; ``position`` counts characters from 1."""

    def __init__(self, what: str, position: int) -> None:
        super().__init__(f"{what} at character {position}")
        self.position = position


class Guard(NamedTuple):
    """A guard that was read.

    Attributes:
        refs: what it refers to, each once, in order.
    """

    refs: tuple[Ref, ...]
    value: _Value

    def holds(self, lookup: Lookup) -> bool:
        """Whether the step runs. What is missing is null."""
        return truthy(self.value(lookup))


class _Token(NamedTuple):
    kind: str
    text: str
    position: int


def parse(text: str) -> Guard:
    """Read a guard; an empty one always holds.

    Raises:
        WhenError: it does not follow the grammar.
    """
    if len(text) > MAX_CHARS:
        raise WhenError(f"a guard has at most {MAX_CHARS} characters; more", MAX_CHARS)
    tokens = list(_tokens(text))
    if len(tokens) == 1:
        return Guard((), lambda _lookup: True)
    reader = _Reader(tokens)
    value = reader.either(0)
    reader.end()
    refs = (tuple(token.text[1:-1].split(".")) for token in tokens if token.kind == "ref")
    return Guard(tuple(dict.fromkeys(refs)), value)


def _tokens(text: str) -> Iterator[_Token]:
    at = 0
    end = len(text.rstrip())
    while at < end:
        match = _TOKEN.match(text, at)
        if match is None:
            at += len(text[at:]) - len(text[at:].lstrip())
            raise WhenError(f"unexpected {text[at : at + 20]!r}", at + 1)
        kind = str(match.lastgroup)
        yield _Token(kind, match[kind], match.start(kind) + 1)
        at = match.end()
    yield _Token("end", "", len(text) + 1)


class _Reader:
    """Recursive descent over the tokens: one method for each rule of the grammar."""

    def __init__(self, tokens: list[_Token]) -> None:
        self.tokens = tokens
        self.at = 0

    def take(self, *signs: str) -> str:
        """The next token if it is one of the signs; "" otherwise."""
        token = self.tokens[self.at]
        if token.kind == "sign" and token.text in signs:
            self.at += 1
            return token.text
        return ""

    def end(self) -> None:
        token = self.tokens[self.at]
        if token.kind != "end":
            raise WhenError(f"unexpected {token.text[:20]!r}", token.position)

    def either(self, depth: int) -> _Value:
        values = [self.both(depth)]
        while self.take("||"):
            values.append(self.both(depth))
        if len(values) == 1:
            return values[0]
        return lambda lookup: any(truthy(value(lookup)) for value in values)

    def both(self, depth: int) -> _Value:
        values = [self.negated(depth)]
        while self.take("&&"):
            values.append(self.negated(depth))
        if len(values) == 1:
            return values[0]
        return lambda lookup: all(truthy(value(lookup)) for value in values)

    def negated(self, depth: int) -> _Value:
        if self.take("!"):
            value = self.negated(self.deeper(depth))
            return lambda lookup: not truthy(value(lookup))
        left = self.primary(depth)
        sign = self.take(*_SIGNS)
        if not sign:
            return left
        right = self.primary(depth)
        return lambda lookup: compare(sign, left(lookup), right(lookup))

    def primary(self, depth: int) -> _Value:
        token = self.tokens[self.at]
        if self.take("("):
            value = self.either(self.deeper(depth))
            if not self.take(")"):
                raise WhenError("a closing bracket is missing", self.tokens[self.at].position)
            return value
        if token.kind in {"sign", "end"}:
            what = f"unexpected {token.text!r}" if token.text else "a value is missing"
            raise WhenError(what, token.position)
        self.at += 1
        if token.kind == "ref":
            ref = tuple(token.text[1:-1].split("."))
            return lambda lookup: lookup(ref)
        literal = _literal(token)
        return lambda _lookup: literal

    def deeper(self, depth: int) -> int:
        if depth >= MAX_DEPTH:
            raise WhenError("it is nested too deeply,", self.tokens[self.at].position)
        return depth + 1


def _literal(token: _Token) -> Json:
    if token.kind == "text":
        # A backslash makes the next character literal; there are no other escapes.
        return re.sub(r"\\(.)", r"\1", token.text[1:-1], flags=re.DOTALL)
    if token.kind == "number":
        return float(token.text)
    return _WORDS.get(token.text, token.text)


def truthy(value: Json) -> bool:
    """Whether a value counts as true.

    Null, zero, what is empty, and text that says so in any case: ``false``, ``0``, ``no``, ``off``, ``null`` do not.
    """
    return value.strip().lower() not in _FALSE if isinstance(value, str) else bool(value)


def compare(sign: str, left: Json, right: Json) -> bool:
    """Compare as numbers if both sides look like numbers, else as text, in which null is empty."""
    first, second = _number(left), _number(right)
    if first is not None and second is not None:
        return _ordered(sign, (first > second) - (first < second))
    one, other = _text(left), _text(right)
    return _ordered(sign, (one > other) - (one < other))


def _ordered(sign: str, order: int) -> bool:
    """What a comparison says where its left side is less (-1), equal (0) or more (1)."""
    if sign in {"==", "!="}:
        return (order == 0) is (sign == "==")
    return (order == 0 and sign.endswith("=")) or order == (1 if sign.startswith(">") else -1)


def _number(value: Json) -> float | None:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    return float(text) if re.fullmatch(_NUMBER, text) else None


def _text(value: Json) -> str:
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
