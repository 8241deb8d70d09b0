"""Sends task messages to a broker, in a thread of its own that keeps one connection.

A message is sent again if the connection broke: messages with the same id have the same result.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

from stepwell.local.celery.addresses import shown, without_secrets
from stepwell.local.celery.connections import CONNECT_S
from stepwell.local.celery.messages import TaskMessage
from stepwell.local.celery.senders import KombuSender, sender

_MOST_AT_ONCE = 500
log = logging.getLogger("stepwell.celery")


class BrokerGone(Exception):
    """The broker could not be reached, or refused a message. The message contains no secret."""


@dataclass(frozen=True, slots=True)
class _Sending:
    message: TaskMessage
    sent: asyncio.Future[None]


class Publisher:
    """Publishes and revokes tasks. `reply_to`: the queue for results, if the backend is rpc://."""

    def __init__(self, address: str, reply_to: str, origin: str) -> None:
        self._address = address
        self._sender = sender(address, reply_to, origin)
        self._control = KombuSender(address, reply_to, origin)
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[_Sending | str | None] = queue.SimpleQueue()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, name="stepwell-celery-publisher", daemon=True)
        self._thread.start()

    # --- on the event loop's thread --------------------------------------------------------------------------------

    async def publish(self, message: TaskMessage) -> None:
        """Returns when the broker has the message. Raises BrokerGone."""
        sent: asyncio.Future[None] = self._loop.create_future()
        self._inbox.put(_Sending(message, sent))
        await sent

    def revoke(self, task_id: str) -> None:
        """Asks all workers to drop or to stop the task. Returns at once."""
        self._inbox.put(task_id)

    async def close(self) -> None:
        """Closes the connection. Tasks that are not sent yet are dropped: the next start of the server sends them."""
        self._is_closing = True
        self._inbox.put(None)
        await asyncio.to_thread(self._thread.join, CONNECT_S + 1)

    def _settle(self, sendings: Sequence[_Sending], error: BrokerGone | None) -> None:
        for sending in sendings:
            if sending.sent.done():
                continue
            if error is None:
                sending.sent.set_result(None)
            else:
                sending.sent.set_exception(error)

    # --- in the thread ---------------------------------------------------------------------------------------------

    def _work(self) -> None:
        is_open = True
        while is_open:
            sendings, revoked = list[_Sending](), list[str]()
            for item in self._received():
                if item is None:
                    is_open = False
                elif isinstance(item, str):
                    revoked.append(item)
                else:
                    sendings.append(item)
            if sendings:
                self._report(*self._send_all(sendings))
            if revoked:
                self._revoke_all(revoked)
        self._sender.close()
        self._control.close()

    def _received(self) -> Iterator[_Sending | str | None]:
        yield self._inbox.get()
        with suppress(queue.Empty):
            for _ in range(_MOST_AT_ONCE):
                yield self._inbox.get_nowait()

    def _report(self, sent: Sequence[_Sending], unsent: Sequence[_Sending], error: BrokerGone | None) -> None:
        with suppress(RuntimeError):  # the event loop is closed
            self._loop.call_soon_threadsafe(self._settle, sent, None)
            if unsent:
                self._loop.call_soon_threadsafe(self._settle, unsent, error)

    def _send_all(
        self, sendings: Sequence[_Sending]
    ) -> tuple[Sequence[_Sending], Sequence[_Sending], BrokerGone | None]:
        """What was sent, what was not, and why. A kept connection may be broken, so there is a second try."""
        done = 0
        for is_last in (not self._sender.is_connected, True):
            try:
                while done < len(sendings) and not self._is_closing:
                    done += self._sender.send([sending.message for sending in sendings[done:]])
                return sendings[:done], (), None
            except Exception as error:
                self._sender.close()
                if is_last:
                    return sendings[:done], sendings[done:], self._gone(error)
        raise AssertionError("the last try returns")

    def _revoke_all(self, task_ids: Sequence[str]) -> None:
        try:
            if not self._control.revoke(task_ids):
                log.warning("%s has no remote control: tasks that are cancelled run to the end", shown(self._address))
        except Exception as error:
            self._control.close()
            log.warning("%s tasks could not be revoked: %s", len(task_ids), self._gone(error))

    def _gone(self, error: Exception) -> BrokerGone:
        reason = without_secrets(str(error) or type(error).__name__, self._address)
        return BrokerGone(f"the broker {shown(self._address)} does not accept the task: {reason}")
