"""The protocol between the server and its reader process, on a socket.

A question is `>II` (number, length) and a JSON list of path and query. An answer is `>IHII` (number, status, lengths of
headers and body), the headers as lines, and the body. An answer with number 0 comes first: the process is ready.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

import orjson

_QUESTION = struct.Struct(">II")
_ANSWER = struct.Struct(">IHII")


class Question(NamedTuple):
    number: int
    path: str
    query: str


class Answer(NamedTuple):
    number: int
    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes


def pack_question(question: Question) -> bytes:
    text = orjson.dumps(question[1:])
    return _QUESTION.pack(question.number, len(text)) + text


def pack_answer(number: int, status: int, headers: Iterable[tuple[bytes, bytes]], body: bytes) -> bytes:
    lines = b"\n".join(name + b":" + value for name, value in headers)  # headers contain no line feeds
    return b"".join((_ANSWER.pack(number, status, len(lines), len(body)), lines, body))


def take_questions(received: bytearray) -> Iterator[Question]:
    """Removes and yields the complete questions."""
    while len(received) >= _QUESTION.size:
        number, length = _QUESTION.unpack_from(received)
        end = _QUESTION.size + length
        if len(received) < end:
            return
        path, query = orjson.loads(bytes(received[_QUESTION.size : end]))
        del received[:end]
        yield Question(number, path, query)


def take_answers(received: bytearray) -> Iterator[Answer]:
    """Removes and yields the complete answers."""
    while len(received) >= _ANSWER.size:
        number, status, of_headers, of_body = _ANSWER.unpack_from(received)
        start = _ANSWER.size + of_headers
        if len(received) < start + of_body:
            return
        lines = bytes(received[_ANSWER.size : start]).split(b"\n") if of_headers else []
        body = bytes(memoryview(received)[start : start + of_body])
        del received[: start + of_body]
        yield Answer(number, status, [(pair[0], pair[2]) for pair in (line.partition(b":") for line in lines)], body)
