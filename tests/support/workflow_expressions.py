"""Expressions of GitHub's workflows, as a runner evaluates them: the part of the language that our workflows use.

What is not known here is an error, so that no test passes because a condition was misread.
https://docs.github.com/en/actions/reference/workflows-and-actions/expressions
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any

TOKEN = re.compile(
    r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<number>\d+)|(?P<name>[A-Za-z_][\w-]*)|(?P<sign>&&|\|\||==|!=|[!().,*]))"
)
STATUS = frozenset({"success", "failure", "always", "cancelled"})


class UnknownExpressionError(Exception):
    """An expression uses something that this module does not know."""


def evaluate(text: str, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """The value of an expression without its braces."""
    tokens = _tokens(text)
    parser = _Parser(tokens, contexts, functions)
    value = parser.either()
    if parser.at != len(tokens):
        raise UnknownExpressionError(f"{text!r}: what comes from {tokens[parser.at][1]!r} on is not understood")
    return value


def condition(text: str, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> bool:
    """Whether an `if:` holds. Without a status function it needs success besides, as a runner does it."""
    text = str(text).strip()
    if text.startswith("${{"):
        text = text.removeprefix("${{").removesuffix("}}")
    asked = {name for kind, name in _tokens(text) if kind == "name"} & STATUS
    if not asked and not functions["success"]():
        return False
    return truth(evaluate(text, contexts, functions))


def fill(text: Any, contexts: Mapping[str, Any], functions: Mapping[str, Callable[..., Any]]) -> Any:
    """A text with its `${{ }}` replaced. A text that is one expression alone keeps the value's type."""
    if not isinstance(text, str):
        return text
    whole = re.fullmatch(r"\$\{\{((?:(?!\}\}).)*)\}\}", text.strip())
    if whole:
        return evaluate(whole[1], contexts, functions)
    return re.sub(r"\$\{\{(.*?)\}\}", lambda found: shown(evaluate(found[1], contexts, functions)), text)


def shown(value: Any) -> str:
    """A value as text in a workflow."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value)


def truth(value: Any) -> bool:
    """GitHub's idea of truth: only false, 0, '' and null are false; lists and mappings are true."""
    return not (value is None or value is False or value in (0, "")) if not isinstance(value, (list, dict)) else True


def _tokens(text: str) -> list[tuple[str, str]]:
    tokens, at = [], 0
    text = text.rstrip()
    while at < len(text):
        found = TOKEN.match(text, at)
        if not found:
            raise UnknownExpressionError(f"{text!r}: {text[at:]!r} is not understood")
        tokens.append((str(found.lastgroup), found[str(found.lastgroup)]))
        at = found.end()
    return tokens


class _Parser:
    def __init__(
        self,
        tokens: list[tuple[str, str]],
        contexts: Mapping[str, Any],
        functions: Mapping[str, Callable[..., Any]],
    ) -> None:
        self.tokens, self.contexts, self.functions, self.at = tokens, contexts, functions, 0

    def next_is(self, *signs: str) -> bool:
        return self.at < len(self.tokens) and self.tokens[self.at] in [("sign", sign) for sign in signs]

    def take(self, sign: str) -> bool:
        found = self.next_is(sign)
        self.at += found
        return found

    def need(self, sign: str) -> None:
        if not self.take(sign):
            raise UnknownExpressionError(f"{sign!r} is missing in {self.tokens}")

    def either(self) -> Any:
        value = self.both()
        while self.take("||"):
            other = self.both()
            value = value if truth(value) else other
        return value

    def both(self) -> Any:
        value = self.equal()
        while self.take("&&"):
            other = self.equal()
            value = other if truth(value) else value
        return value

    def equal(self) -> Any:
        value = self.single()
        while self.next_is("==", "!="):
            same = self.take("==")
            self.at += not same
            value = _same(value, self.single()) == same
        return value

    def single(self) -> Any:
        if self.take("!"):
            return not truth(self.single())
        if self.take("("):
            value = self.either()
            self.need(")")
            return value
        kind, text = self.tokens[self.at] if self.at < len(self.tokens) else ("", "")
        self.at += 1
        if kind == "text":
            return text[1:-1].replace("''", "'")
        if kind == "number":
            return int(text)
        if kind == "name" and text in ("true", "false", "null"):
            return {"true": True, "false": False, "null": None}[text]
        if kind == "name":
            return self.call(text) if self.next_is("(") else self.member(text)
        raise UnknownExpressionError(f"{text!r} in {self.tokens}")

    def call(self, name: str) -> Any:
        if name not in self.functions:
            raise UnknownExpressionError(f"the function {name}")
        self.need("(")
        arguments = []
        while not self.next_is(")"):
            arguments.append(self.either())
            self.take(",")
        self.need(")")
        return self.functions[name](*arguments)

    def member(self, name: str) -> Any:
        if name not in self.contexts:
            raise UnknownExpressionError(f"the context {name}")
        value, each = self.contexts[name], False
        while self.take("."):
            if self.take("*"):
                value, each = list(value or ()), True
                continue
            key = self.tokens[self.at][1]
            self.at += 1
            value = [_get(one, key) for one in value] if each else _get(value, key)
        return value


def _get(value: Any, key: str) -> Any:
    return value.get(key) if isinstance(value, Mapping) else None


def _same(one: Any, other: Any) -> bool:
    """Texts are compared without case; what differs in kind is compared as a number by GitHub, and refused here."""
    if isinstance(one, str) and isinstance(other, str):
        return one.lower() == other.lower()
    if one is None or other is None or type(one) is type(other):
        return bool((one or "") == (other or "")) if None in (one, other) else bool(one == other)
    raise UnknownExpressionError(f"a comparison of {one!r} with {other!r}")


def contains(where: Any, what: Any) -> bool:
    """`contains()`: whether a list has an item, or a text has a part."""
    if isinstance(where, list):
        return any(_same(one, what) for one in where)
    return shown(what).lower() in shown(where).lower()


def from_json(text: Any) -> Any:
    """`fromJSON()`."""
    return json.loads(shown(text))
