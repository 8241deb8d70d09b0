"""How many messages Lambda hands over at once, by how fast they come: a small simulation of its pollers.

What is documented (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html): Lambda reads a standard
queue with five pollers, which wait for messages by long polling; each receives a batch, invokes the function and waits
for its end. If messages are still there, it adds pollers, up to the mapping's maximum concurrency. When there is little
traffic it may go down to two, but not for a mapping with a maximum concurrency, as Stepwell's have.

What is assumed: messages come at random (Poisson), an empty receive takes 20 s, a receive and a delete 10 ms together.
When Lambda adds pollers is not documented, so each rate is simulated with the fewest that keep up and with the most.
With a batching window, a poller receives again and again until it has a batch or the window is over, and each message
comes by a receive of its own.
"""

from __future__ import annotations

import heapq
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

POLLERS = 5
LONG_POLL_S = 20.0
ROUND_TRIP_S = 0.010
MOST_MESSAGES = 10
_MESSAGES = 6_000


@dataclass(frozen=True, slots=True)
class Handed:
    """`batch`: messages of an invocation, on average. `receives`: requests for a message, empty ones left out.
    `empty_s`: empty receives a second."""

    pollers: int
    batch: float
    receives: float
    empty_s: float


def hand_over(rate: float, seconds: Callable[[float], float], pollers: int, window_s: float = 0) -> Handed:
    """What becomes of messages that come so often a second. `seconds`: how long the handler takes for a batch."""
    return _Simulation(rate, seconds, pollers, window_s).run()


def fewest(rate: float, seconds: Callable[[float], float], most: int) -> int:
    """The pollers that keep up with full batches, and have a tenth to spare; at least five."""
    needed = rate / MOST_MESSAGES * (seconds(MOST_MESSAGES) + ROUND_TRIP_S) * 1.1
    return max(POLLERS, min(most, int(needed) + 1))


class _Simulation:
    """Events are times at which a message comes, a poller is free again, or a window is over."""

    def __init__(self, rate: float, seconds: Callable[[float], float], pollers: int, window_s: float) -> None:
        self._rate, self._seconds, self._pollers, self._window = rate, seconds, pollers, window_s
        self._random = random.Random(7)
        self._queue: deque[float] = deque()
        self._idle: dict[int, float] = dict.fromkeys(range(pollers), 0.0)  # since when they wait
        self._filling: dict[int, tuple[int, float]] = {}  # messages of those whose window is open, and until when
        self._batches = self._handed = self._receives = self._empty = 0
        self._events: list[tuple[float, int, str, int]] = []
        self._number = 0

    def run(self) -> Handed:
        now = 0.0
        came = 0
        self._at(self._random.expovariate(self._rate), "message", 0)
        while self._events:
            now, _, what, poller = heapq.heappop(self._events)
            if what == "message":
                came += 1
                self._message(now)
                if came < _MESSAGES:
                    self._at(now + self._random.expovariate(self._rate), "message", 0)
            elif what == "free":
                self._free(now, poller)
            elif self._filling.get(poller, (0, 0.0))[1] == now:
                self._invoke(now, poller, self._filling.pop(poller)[0])
        for since in self._idle.values():
            self._empty += int((now - since) / LONG_POLL_S)
        return Handed(self._pollers, self._handed / self._batches, self._receives / self._handed, self._empty / now)

    def _at(self, time: float, what: str, poller: int) -> None:
        self._number += 1
        heapq.heappush(self._events, (time, self._number, what, poller))

    def _message(self, now: float) -> None:
        """Any of the pollers that wait or fill a batch receives it."""
        ready = [*self._idle, *self._filling]
        if not ready:
            self._queue.append(now)
            return
        poller = self._random.choice(ready)
        if poller in self._idle:
            self._empty += int((now - self._idle.pop(poller)) / LONG_POLL_S)
        self._receive(now, poller, 1)

    def _free(self, now: float, poller: int) -> None:
        if not self._queue:
            self._idle[poller] = now
            return
        taken = min(MOST_MESSAGES, len(self._queue))
        for _ in range(taken):
            self._queue.popleft()
        self._receive(now, poller, taken)

    def _receive(self, now: float, poller: int, messages: int) -> None:
        self._receives += 1
        held, until = self._filling.pop(poller, (0, now + self._window))
        if held + messages >= MOST_MESSAGES or not self._window:
            self._invoke(now, poller, held + messages)
            return
        self._filling[poller] = held + messages, until
        if not held:
            self._at(until, "window", poller)

    def _invoke(self, now: float, poller: int, messages: int) -> None:
        self._batches += 1
        self._handed += messages
        self._at(now + self._seconds(messages) + ROUND_TRIP_S, "free", poller)
