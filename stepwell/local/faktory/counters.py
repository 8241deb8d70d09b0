"""What the server has counted since it started, in the form of the reply to INFO."""

from __future__ import annotations

import resource
from collections.abc import Callable, Mapping

import orjson

from stepwell import __version__
from stepwell.core.times import time_text


class Counters:
    def __init__(self, time: Callable[[], float]) -> None:
        """`time` returns seconds of a steady clock."""
        self._time, self._began = time, time()
        self.commands = self.processed = self.failed = 0

    def info(self, now: int, connections: int, queues: Mapping[str, int]) -> bytes:
        """The reply to INFO, with the fields of Faktory. `queues`: how many jobs wait, by queue."""
        text = time_text(now)
        return orjson.dumps(
            {
                "now": text,
                "server_utc_time": f"{text[11:19]} UTC",
                "faktory": {
                    "queues": dict(queues),
                    "tasks": {},
                    "total_enqueued": sum(queues.values()),
                    "total_failures": self.failed,
                    "total_processed": self.processed,
                    "total_queues": len(queues),
                },
                "server": {
                    "description": "Stepwell",
                    "faktory_version": __version__,
                    "uptime": int(self._time() - self._began),
                    "connections": connections,
                    "command_count": self.commands,
                    "used_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
                },
            }
        )
