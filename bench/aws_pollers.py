"""Simulates Lambda's pollers: how many messages an invocation gets, depending on the rate of messages.

Documented (https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-scaling.html): Lambda reads a standard queue with
five pollers, which long-poll. Each receives a batch, invokes the function, and waits until it ends. If messages remain,
Lambda adds pollers, up to the maximum concurrency of the mapping. With little traffic it may go down to two, but not
for a mapping with a maximum concurrency, as Stepwell's have.

Assumed: messages arrive at random (Poisson), an empty receive takes 20 s, and a receive and a delete take 10 ms
together. It is not documented when Lambda adds pollers. So each rate is simulated twice: with the smallest number of
pollers that keeps up, and with the largest. With a batching window, a poller receives again until the batch is full or
the window has ended, and each message comes by a separate receive.
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
    """`batch`: messages per invocation, on average.

    `receives`: requests per message, without empty ones. `empty_s`: empty receives per second.
    """

    pollers: int
    batch: float
    receives: float
    empty_s: float


def hand_over(rate: float, seconds: Callable[[float], float], pollers: int, window_s: float = 0) -> Handed:
    """Simulates messages at this rate per second. `seconds` returns how long the handler takes for a batch."""
    return _Simulation(rate, seconds, pollers, window_s).run()


def fewest(rate: float, seconds: Callable[[float], float], most: int) -> int:
    """The smallest number of pollers that keeps up with full batches, with a tenth to spare; at least five."""
    needed = rate / MOST_MESSAGES * (seconds(MOST_MESSAGES) + ROUND_TRIP_S) * 1.1
    return max(POLLERS, min(most, int(needed) + 1))


class _Simulation:
    """Its events are times at which a message arrives, a poller becomes free, or a window ends."""

    def __init__(self, rate: float, seconds: Callable[[float], float], pollers: int, window_s: float) -> None:
        self._rate, self._seconds, self._pollers, self._window = rate, seconds, pollers, window_s
        self._random = random.Random(7)
        self._queue: deque[float] = deque()
        self._idle: dict[int, float] = dict.fromkeys(range(pollers), 0.0)  # by poller: since when it is idle
        self._filling: dict[int, tuple[int, float]] = {}  # pollers with an open window: messages, and its end
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
        """Gives a message to any poller that is idle or fills a batch."""
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
