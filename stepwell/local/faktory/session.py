"""The conversation with one client, without I/O: the greeting, who the client is, and one command after another.

A session is fed with bytes. `next` returns replies that need nothing of the server, and commands that the server has
to answer before it calls `next` again.
"""

from __future__ import annotations

import orjson

from stepwell.local.faktory import wire
from stepwell.local.faktory.commands import Ack, BadCommand, Beat, Command, End, Fail, Fetch, Hello, parse_command
from stepwell.local.faktory.passwords import Challenge

_VERSION = 2
_OF_WORKERS = (Fetch, Ack, Fail, Beat)


class Session:
    """`hello`: what the client has said about itself; None until then. `is_over`: the connection must be closed, after
    the last reply is written."""

    def __init__(self, challenge: Challenge | None) -> None:
        """`challenge`: what the client must answer; None if there is no password."""
        self._challenge = challenge
        self._reader = wire.LineReader()
        self.hello: Hello | None = None
        self.is_over = False

    def greeting(self) -> bytes:
        """The first bytes to send. The JSON has no spaces, because clients split the line at spaces."""
        greeting: dict[str, object] = {"v": _VERSION}
        if self._challenge is not None:
            greeting |= {"s": self._challenge.salt, "i": self._challenge.iterations}
        return b"+HI " + orjson.dumps(greeting) + b"\r\n"

    def feed(self, data: bytes) -> None:
        if not self.is_over:
            self._reader.feed(data)

    @property
    def waiting(self) -> int:
        """The number of bytes that were received and not read yet."""
        return self._reader.waiting

    def next(self) -> bytes | Command | None:
        """A reply to send, a command to answer, or None until more bytes come."""
        if self.is_over:
            return None
        try:
            line = self._reader.line()
            return None if line is None else self._take(line)
        except wire.LineTooLong:
            self.is_over = True
            return wire.error(f"a command may have at most {self._reader.most:,} bytes", "MALFORMED")
        except BadCommand as reason:
            self.is_over = self.hello is None
            return wire.error(str(reason), reason.code)

    def _take(self, line: bytes) -> bytes | Command:
        command = parse_command(line)
        if isinstance(command, Hello):
            self._identify(command)
            return wire.OK
        if isinstance(command, End):
            self.is_over = True
            return wire.OK
        if self.hello is None:
            raise BadCommand("the first command must be HELLO")
        if isinstance(command, _OF_WORKERS) and self.hello.wid is None:
            raise BadCommand("only workers may do this: HELLO needs `wid`, the id of the worker")
        if isinstance(command, Beat) and command.wid != self.hello.wid:
            raise BadCommand("BEAT has another `wid` than HELLO")
        return command

    def _identify(self, hello: Hello) -> None:
        if self.hello is not None:
            raise BadCommand("HELLO was sent already")
        if hello.version != _VERSION:
            raise BadCommand(f"the version of the protocol must be {_VERSION}")
        if self._challenge is not None and not self._challenge.is_met_by(hello.pwdhash):
            raise BadCommand("wrong password" if hello.pwdhash else "a password is needed, as in tcp://:PASSWORD@HOST")
        self.hello = hello
        self._reader.most = wire.MAX_LINE_BYTES
