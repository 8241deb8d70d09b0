"""A connection that answers most requests with events directly, without a task and ASGI messages.

The response is always the same as the application's. So only ordinary requests are answered here: a small body of known
length, a valid key, valid events. All others go to the application, without any effect before.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, cast

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from stepwell.api.asgi import App, Message
from stepwell.api.ingest.ingest import accepted
from stepwell.core.events.events import Event
from stepwell.local.http.answers import Answering
from stepwell.local.http.connection import Connection

_STOPPING = "not accepted, try again: the server is stopping"


class IngestConnection(Connection):
    _begins = False  # a request's head is complete, and no earlier request is unanswered
    _awaited: tuple[RequestResponseCycle, dict[str, str]] | None = None  # a request without its body yet, and headers

    def on_headers_complete(self) -> None:
        self._begins, self._awaited = True, None
        try:
            super().on_headers_complete()
        finally:
            self._begins = False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        is_usual = self._begins and self._length and not (self._chunked or self._expects_continue)
        scope = cast("Message", cycle.scope)
        if is_usual and isinstance(app, App) and (headers := app.admits(scope, self._length)) is not None:
            self._running, self._awaited = cycle, (cycle, headers)
        else:
            self._start_task(cycle, app)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        awaited, self._awaited = self._awaited, None
        if awaited is not None and awaited[0] is self.cycle and not self._in_body:
            self._take(*awaited)

    def _take(self, cycle: RequestResponseCycle, headers: dict[str, str]) -> None:
        app = cast("App", self.app)
        try:
            taken = app.take_at_once(headers, bytes(cycle.body))
        except Exception:
            taken = None  # the application reports the error
        if taken is None:
            self._start_task(cycle, app)
        else:
            events, durable = taken
            durable.add_done_callback(partial(self._durable, cycle, events))

    def _durable(self, cycle: RequestResponseCycle, events: Sequence[Event], durable: asyncio.Future[None]) -> None:
        error = asyncio.CancelledError(_STOPPING) if durable.cancelled() else durable.exception()
        if error is not None or not cast("Answering", cycle).answer_json(accepted(events)):
            self._start_task(cycle, cast("App", self.app).end_of(events, error))
            return
        cycle.on_response = _do_nothing  # breaks a reference cycle with the connection

    def _start_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        super()._start_asgi_task(cycle, app)


def _do_nothing() -> None:
    return
