"""The conversation of the Faktory server with one client, byte by byte and without a network."""

from __future__ import annotations

import hashlib
import random
from typing import Any

import orjson
import pytest

from stepwell.local.faktory import wire
from stepwell.local.faktory.commands import Ack, Beat, Command, Fail, Fetch, Info, Push, Queue
from stepwell.local.faktory.passwords import Challenges
from stepwell.local.faktory.session import Session

WORKER = b'HELLO {"hostname":"here","wid":"4qpc2443vpvai","pid":2676,"labels":["python"],"v":2}\r\n'
CLIENT = b'HELLO {"v":2}\r\n'


def taken(session: Session, data: bytes) -> list[bytes | Command]:
    """What a session makes of these bytes."""
    session.feed(data)
    found: list[bytes | Command] = []
    while (item := session.next()) is not None:
        found.append(item)
    return found


def worker() -> Session:
    session = Session(None)
    assert taken(session, WORKER) == [wire.OK]
    return session


def refusal(session: Session, data: bytes) -> str:
    (reply,) = taken(session, data)
    assert isinstance(reply, bytes)
    assert reply.startswith(b"-")
    assert reply.endswith(b"\r\n")
    assert reply.count(b"\n") == 1
    return reply.decode()


def test_the_greeting_is_one_line_without_spaces_in_the_json() -> None:
    assert Session(None).greeting() == b'+HI {"v":2}\r\n'


def test_commands_arrive_whole_or_byte_by_byte() -> None:
    commands = WORKER + b'FETCH critical default\r\nACK {"jid":"a"}\r\nBEAT {"wid":"4qpc2443vpvai"}\r\nEND\r\n'
    expected = [wire.OK, Fetch(("critical", "default")), Ack("a"), Beat("4qpc2443vpvai"), wire.OK]
    assert taken(Session(None), commands) == expected
    session, found = Session(None), []
    for byte in commands:
        found += taken(session, bytes([byte]))
    assert found == expected
    assert session.is_over


@pytest.mark.parametrize("seed", range(20))
def test_any_split_of_the_bytes_gives_the_same_commands(seed: int) -> None:
    numbers = random.Random(seed)
    commands = WORKER + b"".join(b"FETCH q%d\r\n" % n for n in range(20))
    session, found = Session(None), []
    while commands:
        size = numbers.randrange(1, 40)
        found += taken(session, commands[:size])
        commands = commands[size:]
    assert found == [wire.OK, *(Fetch((f"q{n}",)) for n in range(20))]


def test_a_line_may_end_with_a_line_feed_alone() -> None:
    assert taken(Session(None), b'HELLO {"v":2}\nINFO\n') == [wire.OK, Info()]


def test_half_a_command_is_no_command() -> None:
    session = worker()
    assert taken(session, b'ACK {"jid":"a"}') == []
    assert session.waiting == 15
    assert taken(session, b"\r\n") == [Ack("a")]


# --- who the client is -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first", [b"INFO\r\n", b"FETCH q\r\n", b"PUSH {}\r\n", b"GET / HTTP/1.1\r\n", b"\r\n", b"\x16\x03\x01\n"]
)
def test_a_client_that_does_not_begin_with_hello_is_sent_away(first: bytes) -> None:
    session = Session(None)
    assert refusal(session, first).startswith("-ERR")
    assert session.is_over
    assert taken(session, CLIENT) == []


def test_a_client_without_wid_cannot_do_the_work_of_a_worker() -> None:
    session = Session(None)
    assert taken(session, CLIENT) == [wire.OK]
    assert "only workers" in refusal(session, b"FETCH q\r\n")
    assert "only workers" in refusal(session, b'BEAT {"wid":"x"}\r\n')
    assert taken(session, b"INFO\r\n") == [Info()]


def test_the_heartbeat_of_another_worker_is_refused() -> None:
    assert "another `wid`" in refusal(worker(), b'BEAT {"wid":"other"}\r\n')


def test_hello_is_said_once_and_in_version_two() -> None:
    assert "HELLO was sent already" in refusal(worker(), CLIENT)
    assert "must be 2" in refusal(Session(None), b'HELLO {"v":3}\r\n')
    assert "version" in refusal(Session(None), b"HELLO {}\r\n")


def with_password(password: str, sent: str | None) -> Session:
    """A session on a server with the password `right`, whose client has said HELLO."""
    session = Session(Challenges("right", lambda: 0.0).current())
    greeting = orjson.loads(session.greeting()[4:])
    digest = f"{password}{greeting['s']}".encode()
    for _ in range(greeting["i"]):
        digest = hashlib.sha256(digest).digest()
    hello: dict[str, Any] = {"v": 2, "pwdhash": digest.hex() if sent is None else sent}
    session.feed(b"HELLO " + orjson.dumps(hello) + b"\r\n")
    return session


def test_the_right_password_opens_the_conversation() -> None:
    assert with_password("right", None).next() == wire.OK


@pytest.mark.parametrize(("password", "sent"), [("wrong", None), ("right", ""), ("right", "é"), ("right", "0" * 64)])
def test_any_other_password_ends_it(password: str, sent: str | None) -> None:
    session = with_password(password, sent)
    reply = session.next()
    assert isinstance(reply, bytes)
    assert b"password" in reply
    assert session.is_over


def test_clients_that_connect_together_share_a_challenge_which_is_soon_renewed() -> None:
    now = 0.0
    challenges = Challenges("right", lambda: now)
    first = challenges.current()
    assert challenges.current() is first
    now = 11.0
    assert challenges.current().salt != first.salt


# --- commands --------------------------------------------------------------------------------------------------------


def test_fetch_without_a_queue_means_the_default_queue() -> None:
    assert taken(worker(), b"FETCH\r\nFETCH \r\n") == [Fetch(("default",)), Fetch(("default",))]


def test_fail_carries_the_error() -> None:
    fail = b'FAIL {"jid":"a","errtype":"E","message":"m","backtrace":["x","y"]}\r\n'
    assert taken(worker(), fail) == [Fail("a", "E", "m", ("x", "y"))]
    assert taken(worker(), b'FAIL {"jid":"a","backtrace":null}\r\n') == [Fail("a", "", "", ())]


def test_push_and_pushb_carry_jobs() -> None:
    (one, many) = taken(worker(), b'PUSH {"jid":"a"}\r\nPUSHB [{"jid":"a"},{"jid":"b"}]\r\n')
    assert isinstance(one, Push)
    assert one.jobs == [{"jid": "a"}]
    assert isinstance(many, Push)
    assert many.is_bulk
    assert len(many.jobs) == 2


def test_queues_are_paused_and_resumed_by_name_or_all_at_once() -> None:
    assert taken(worker(), b"QUEUE PAUSE a b\r\nQUEUE RESUME *\r\n") == [
        Queue("PAUSE", ("a", "b")),
        Queue("RESUME", ()),
    ]


@pytest.mark.parametrize(
    ("command", "why"),
    [
        (b"FLUSH", "would delete everything"),
        (b"MUTATE {}", "stepwell cancel"),
        (b"BATCH NEW {}", "Enterprise"),
        (b"TRACK GET x", "Enterprise"),
        (b"QUEUE REMOVE a", "is refused"),
        (b"QUEUE", "PAUSE or RESUME"),
        (b"QUEUE PAUSE", "names of queues"),
        (b"DANCE", "unknown command 'DANCE'"),
        (b"push {}", "unknown command 'PUSH'"),
        (b"ACK", "needs JSON"),
        (b"ACK []", "needs a JSON object"),
        (b"ACK {}", "needs the id of a job"),
        (b'ACK {"jid":7}', "must be a text"),
        (b'ACK {"jid":"a"', "needs JSON"),
        (b"BEAT {}", "needs the id of the worker"),
        (b"PUSH []", "a JSON object"),
        (b"PUSHB {}", "a JSON array"),
        (b"FETCH \xff", "not UTF-8"),
        (b"FETCH " + b" q" * 101, "100 queues"),
        (b"PUSH " + b"[" * 100_000, "needs JSON"),
        (b"ACK \x00\x1b[31m", "needs JSON"),
    ],
)
def test_a_command_that_is_refused_does_not_end_the_conversation(command: bytes, why: str) -> None:
    session = worker()
    assert why in refusal(session, command + b"\r\n")
    assert taken(session, b"INFO\r\n") == [Info()]


# --- limits ----------------------------------------------------------------------------------------------------------


def test_before_hello_only_a_short_line_is_read() -> None:
    session = Session(None)
    assert "at most" in refusal(session, b"x" * 9000)
    assert session.is_over


def test_a_line_without_an_end_is_not_collected_for_ever() -> None:
    session = worker()
    for _ in range(64):
        session.feed(b"x" * 65536)
        assert session.next() is None
    session.feed(b"x")
    assert "at most 4,194,304 bytes" in str(session.next())
    assert session.is_over
    session.feed(b"x" * 1000)
    assert session.next() is None


@pytest.mark.parametrize("seed", range(50))
def test_garbage_is_answered_with_errors_only(seed: int) -> None:
    numbers = random.Random(seed)
    session = worker() if seed % 2 else Session(None)
    for reply in taken(session, numbers.randbytes(5000) + b"\n"):
        assert isinstance(reply, bytes)
        assert reply[:1] == b"-"
        assert reply.count(b"\r") == reply.count(b"\n") == 1


def test_errors_are_one_line_whatever_they_quote() -> None:
    assert wire.error("a\r\nb\x1b[31m\x00c") == b"-ERR a bc\r\n"
