"""The brokers and result backends of the running tasks: one publisher and one source of results for each address."""

from __future__ import annotations

import os
import socket

from stepwell.local.celery.addresses import RPC, is_redis
from stepwell.local.celery.polled_results import PolledResults
from stepwell.local.celery.publisher import Publisher
from stepwell.local.celery.redis_results import RedisResults
from stepwell.local.celery.rpc_results import RpcResults
from stepwell.local.celery.waiting import Results


class Clients:
    """Makes what is needed at the first use, and keeps it. `server` is the name of the database: see `messages`."""

    def __init__(self, server: str) -> None:
        self._replies = f"stepwell.replies.{server}"
        self._origin = f"stepwell{os.getpid()}@{socket.gethostname()}"  # as Celery names senders: gen1234@host
        self._publishers: dict[tuple[str, str], Publisher] = {}
        self._results: dict[str, Results] = {}

    def publisher(self, broker: str, backend: str) -> Publisher:
        reply_to = self._replies if backend.startswith(RPC) else ""
        if (broker, reply_to) not in self._publishers:
            self._publishers[broker, reply_to] = Publisher(broker, reply_to, self._origin)
        return self._publishers[broker, reply_to]

    def results(self, broker: str, backend: str) -> Results:
        address = f"{RPC}{broker}" if backend.startswith(RPC) else backend
        if address not in self._results:
            self._results[address] = results = self._new_results(broker, backend)
            results.start()
        return self._results[address]

    def _new_results(self, broker: str, backend: str) -> Results:
        if backend.startswith(RPC):
            return RpcResults(broker, self._replies)
        return RedisResults(backend) if is_redis(backend) else PolledResults(backend)

    async def close(self) -> None:
        for publisher in self._publishers.values():
            await publisher.close()
        for results in self._results.values():
            await results.close()
        self._publishers.clear()
        self._results.clear()
