"""HTTP/2 (RFC 9113) for the same application. The library `h2` implements the protocol, without I/O.

Adds limits that `h2` does not have, here and in `http2_frames`: on streams, on stalled bodies and responses, and on
frames that have no effect.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import h2.events
from h2.errors import ErrorCodes
from h2.exceptions import H2Error
from hyperframe.frame import GoAwayFrame
from uvicorn.config import Config
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.utils import get_local_addr, get_remote_addr, is_ssl
from uvicorn.server import ServerState

from stepwell.local.http.connection_limit import NEVER, make_room
from stepwell.local.http.http2_frames import Frames, TooMuch
from stepwell.local.http.http2_settings import MOST_STREAMS, bound_header_table, new_server_side
from stepwell.local.http.http2_stream import Malformed, Stream, refuse, scope_of

log = logging.getLogger("stepwell.http")

_MOST_TASKS = 4096  # of all connections
_DRAINED_BYTES = 256 * 1024 * 1024  # of a body after the response: some clients fail if the stream is reset then
_FRAMES_AT_ONCE = 20  # before other connections continue


class Http2Connection(asyncio.Protocol):
    silence_s = 60.0

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        self._app = config.loaded_app
        self._state, self._app_state = server_state, app_state
        self._loop = _loop or asyncio.get_event_loop()
        self._h2 = new_server_side()
        self._frames = Frames(self._loop.time)
        self._is_waiting = False  # more frames are to be read in the loop's next iteration
        self._streams: dict[int, Stream] = {}  # requests that the application is answering
        self._drained: dict[int, int] = {}  # bytes of unneeded bodies, by stream
        self._window = asyncio.Event()
        self._is_ending = False
        self._active_at = self._loop.time()
        self._unread_since = NEVER

    # --- the transport's callbacks -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._transport, self._flow = transport, FlowControl(transport)
        self._addresses = get_local_addr(transport), get_remote_addr(transport)
        self._scheme = "https" if is_ssl(transport) else "http"
        self._state.connections.add(self)  # type: ignore[arg-type]
        make_room(self._state.connections, self)
        self.flush()

    def connection_lost(self, exc: Exception | None) -> None:
        self._state.connections.discard(self)
        self._forget()
        self._flow.resume_writing()

    def data_received(self, data: bytes) -> None:
        self._frames.add(data)
        if not self._is_waiting:
            self._read_frames()

    def pause_writing(self) -> None:
        """Stops reading too: responses to more frames would only add to the unread data."""
        self._unread_since = self._loop.time()
        self._flow.pause_writing()
        self._flow.pause_reading()

    def resume_writing(self) -> None:
        self._unread_since = NEVER
        self._flow.resume_writing()
        if not self._is_waiting:
            self._flow.resume_reading()

    # --- frames ------------------------------------------------------------------------------------------------------

    def _read_frames(self) -> None:
        self._is_waiting = False
        try:
            for _ in range(_FRAMES_AT_ONCE):
                if self._transport.is_closing():
                    return
                frame = self._frames.take()
                if frame is None:
                    break
                for event in self._h2.receive_data(frame):
                    self._handle(event)
            else:
                self._is_waiting = True
                self._flow.pause_reading()
                self._loop.call_soon(self._read_frames)
        except TooMuch as refused:
            self._close(refused.code)
        except H2Error as error:
            log.debug("an HTTP/2 connection was closed: %s", error)
            self._close()
        except Exception:
            log.exception("an HTTP/2 connection was closed by an internal error")
            self._close(ErrorCodes.INTERNAL_ERROR)
        self.flush()
        if not self._is_waiting and not self._flow.write_paused:
            self._flow.resume_reading()

    def _handle(self, event: h2.events.Event) -> None:
        match event:
            case h2.events.RequestReceived():
                self._begin(event)
            case h2.events.DataReceived():
                self._take_data(event)
            case h2.events.StreamEnded():
                if stream := self._streams.get(event.stream_id or 0):
                    stream.end_body()
                self._drained.pop(event.stream_id or 0, None)
            case h2.events.StreamReset():
                if stream := self._streams.get(event.stream_id or 0):
                    stream.disconnect()
                self._drained.pop(event.stream_id or 0, None)
                self._window.set()
            case h2.events.WindowUpdated():
                self._window.set()
            case h2.events.RemoteSettingsChanged():
                bound_header_table(self._h2)
                self._window.set()
            case h2.events.ConnectionTerminated():
                self._close()  # `h2` allows no responses after it

    def _begin(self, event: h2.events.RequestReceived) -> None:
        stream_id = event.stream_id
        assert stream_id is not None
        self._active_at = self._loop.time()
        self._frames.allow_for_request()
        if self._is_ending or len(self._streams) >= MOST_STREAMS or len(self._state.tasks) >= _MOST_TASKS:
            self.reset(stream_id, ErrorCodes.REFUSED_STREAM)
            if not self._frames.resets.take():
                self._close(ErrorCodes.ENHANCE_YOUR_CALM)
            return
        app = self._app
        try:
            scope = scope_of(event.headers or [], self._scheme, *self._addresses, self._app_state)
        except Malformed as malformed:
            scope, app = malformed.scope, refuse(malformed.status, str(malformed))
        stream = self._streams[stream_id] = Stream(self, stream_id, scope)
        task = self._loop.create_task(stream.run(app))
        self._state.tasks.add(task)
        task.add_done_callback(self._state.tasks.discard)
        task.add_done_callback(lambda _: self._done(stream))

    def _take_data(self, event: h2.events.DataReceived) -> None:
        stream_id, size = event.stream_id or 0, event.flow_controlled_length or 0
        self._active_at = self._loop.time()
        stream = self._streams.get(stream_id)
        if stream is not None and not stream.is_answered:
            stream.add_body(event.data or b"", size)
            return
        self.acknowledge(stream_id, size)
        self._drained[stream_id] = self._drained.get(stream_id, 0) + size
        if self._drained[stream_id] > _DRAINED_BYTES:
            self.reset(stream_id, ErrorCodes.NO_ERROR)

    # --- used by streams ---------------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self._loop.time()

    def acknowledge(self, stream_id: int, size: int) -> None:
        """Lets the client send this many more bytes."""
        if size and not self._transport.is_closing():
            try:
                self._h2.acknowledge_received_data(size, stream_id)
            except H2Error:  # the stream is closed
                pass

    def send_headers(self, stream_id: int, headers: list[tuple[bytes, bytes]], *, is_last: bool = False) -> None:
        self._h2.send_headers(stream_id, headers, end_stream=is_last)

    async def send_data(self, stream: Stream, data: bytes, *, is_last: bool) -> None:
        """Sends data as the client's window allows. Stops when the stream is gone."""
        left = memoryview(data)
        while not stream.is_gone:
            await self._flow.drain()
            if stream.is_gone:
                return
            most = min(self._h2.local_flow_control_window(stream.id), self._h2.max_outbound_frame_size)
            if len(left) and most <= 0:
                stream.waiting_since = min(stream.waiting_since, self.now)
                self._window.clear()
                self.flush()
                await self._window.wait()
                continue
            stream.waiting_since = NEVER
            piece, left = left[: max(most, 0)], left[max(most, 0) :]
            self._h2.send_data(stream.id, bytes(piece), end_stream=is_last and not left)
            if not left:
                self.flush()
                return

    def reset(self, stream_id: int, code: ErrorCodes) -> None:
        try:
            self._h2.reset_stream(stream_id, code)
        except H2Error:  # the stream is closed already
            pass
        self._drained.pop(stream_id, None)
        self.flush()

    def flush(self) -> None:
        if not self._transport.is_closing() and (data := self._h2.data_to_send()):
            self._transport.write(data)

    # --- closing -----------------------------------------------------------------------------------------------------

    def _done(self, stream: Stream) -> None:
        self._state.total_requests += 1
        self._streams.pop(stream.id, None)
        self._active_at = self._loop.time()
        stream.forget_body()
        self.flush()
        if self._is_ending and not self._streams:
            self._transport.close()

    def shutdown(self) -> None:
        """Answers the current requests, refuses new ones, then closes the connection."""
        if not self._is_ending and not self._transport.is_closing():
            # Written by hand, because `h2` allows no responses after its own GOAWAY.
            last = self._h2.highest_inbound_stream_id
            self.flush()
            self._transport.write(GoAwayFrame(0, last_stream_id=last, error_code=ErrorCodes.NO_ERROR).serialize())
        self._is_ending = True
        if not self._streams:
            self._transport.close()

    def _close(self, code: ErrorCodes | None = None) -> None:
        """Closes the connection immediately. Without `code`, `h2` has already sent the reason."""
        if code is not None:
            try:
                self._h2.close_connection(code)
            except H2Error:
                pass
        self.flush()
        self._forget()
        self._transport.close()

    def _forget(self) -> None:
        """Disconnects all streams."""
        self._frames.clear()
        for stream in self._streams.values():
            stream.disconnect()
        self._window.set()

    @property
    def deadline(self) -> float:
        """When the client must have sent more, in the loop's time; NEVER while the server is working."""
        since = [stream.waiting_since for stream in self._streams.values()] or [self._active_at]
        return max(since) + self.silence_s

    def sweep(self, now: float) -> None:
        if self._unread_since + self.silence_s < now:
            self._transport.abort()
        elif not self._streams and self._active_at + self.silence_s < now:
            self.shutdown()
        for stream in list(self._streams.values()):
            if stream.waiting_since + self.silence_s < now:
                stream.disconnect()
                self.reset(stream.id, ErrorCodes.CANCEL)
                self._window.set()

    def give_way(self) -> None:
        self._close(ErrorCodes.ENHANCE_YOUR_CALM)


def take_over(transport: asyncio.Transport, arguments: tuple[tuple[Any, ...], dict[str, Any]], data: bytes) -> None:
    """Continues a connection as HTTP/2. `arguments` are the positional and named ones of the first protocol, `data` all
    bytes received so far."""
    positional, named = arguments
    connection = Http2Connection(*positional, **named)
    transport.set_protocol(connection)
    connection.connection_made(transport)
    connection.data_received(data)
