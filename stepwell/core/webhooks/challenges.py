"""Challenges: requests with which a sender verifies an address. A rule defines the answer.

An answer is a short text or a small object. A text that is signed for an answer must not be usable as a signed request
of the sender, so it may have only letters, digits, - and _.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import orjson

from stepwell.core.cel.expressions import Bindings, Expression, Scope, compile_expression, compile_value

LONGEST_TEXT = 1024  # characters
_LARGEST_OBJECT = 4096  # bytes
_SIGNABLE = re.compile(r"[A-Za-z0-9_-]{1,128}")
EXPRESSIONS = ("if", "sign", "answer")


class BadChallenge(Exception):
    """A rule cannot answer a challenge. `field`: in the rule; `expression`: of the field; `why`: the reason."""

    def __init__(self, field: str, expression: str, why: str) -> None:
        super().__init__(f"challenge: {field}: {why}")
        self.field, self.expression, self.why = f"challenge/{field}", expression, why


@dataclass(frozen=True, slots=True)
class Token:
    """A field of the query that must be equal to a secret."""

    query: str
    secret: str  # the name of the secret


@dataclass(frozen=True, slots=True)
class Challenge:
    """The rule for challenges. `answer`, `if_` and `sign` are CEL expressions."""

    answer: str
    if_: str | None = None
    sign: str | None = None
    token: Token | None = None

    @classmethod
    def of(cls, raw: dict[str, Any]) -> Challenge:
        token = Token(raw["token"]["query"], raw["token"]["secret"]) if "token" in raw else None
        return cls(raw["answer"], raw.get("if"), raw.get("sign"), token)

    def compiled(self) -> Iterator[Expression]:
        if self.if_ is not None:
            yield compile_expression(self.if_, Scope.WEBHOOK)
        if self.sign is not None:
            yield compile_value(self.sign, Scope.WEBHOOK)
        yield compile_value(self.answer, Scope.CHALLENGE)

    def is_challenge(self, bindings: Bindings) -> bool:
        """Whether a request is a challenge: `if` is true. Without `if`: `sign`, or else `answer`, has a value."""
        if self.if_ is not None:
            return compile_expression(self.if_, Scope.WEBHOOK).evaluate(bindings).holds
        if self.sign is not None:
            return compile_value(self.sign, Scope.WEBHOOK).value(bindings).problem is None
        found = compile_value(self.answer, Scope.CHALLENGE).value(bindings)
        return found.problem is None and found.value is not None

    def answer_to(self, bindings: Bindings, sign: Callable[[str], str]) -> str | bytes:
        """The answer to a challenge: a text, or JSON as bytes. `sign`: signs a text. Raises BadChallenge."""
        if self.sign is not None:
            text = compile_value(self.sign, Scope.WEBHOOK).value(bindings)
            if text.problem is not None:
                raise BadChallenge("sign", self.sign, text.problem)
            if not isinstance(text.value, str) or not _SIGNABLE.fullmatch(text.value):
                why = (
                    "the value is not a text of 1 to 128 letters, digits, - and _; other texts are not signed, because"
                    " they could be a request"
                )
                raise BadChallenge("sign", self.sign, why)
            bindings = bindings.with_signature(sign(text.value))
        found = compile_value(self.answer, Scope.CHALLENGE).value(bindings)
        if found.problem is not None:
            raise BadChallenge("answer", self.answer, found.problem)
        value = found.value
        if isinstance(value, dict):
            content = orjson.dumps(value)
            if len(content) > _LARGEST_OBJECT:
                raise BadChallenge("answer", self.answer, f"the object has more than {_LARGEST_OBJECT:,} bytes")
            return content
        if isinstance(value, bool) or not isinstance(value, str | int):
            raise BadChallenge("answer", self.answer, "the value is not a text, a whole number or an object")
        if len(str(value)) > LONGEST_TEXT:
            raise BadChallenge("answer", self.answer, f"the text has more than {LONGEST_TEXT:,} characters")
        return str(value)
