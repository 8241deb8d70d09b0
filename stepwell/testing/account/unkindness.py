"""The emulated account at its worst: what AWS may do at any time, and an emulator never does by itself.

`Unkindness` decides, by its seed, what happens to which request and message; `unkind_requests` and `unkind_queues` do
it. One rule: only what AWS documents as possible is done, and nothing that would change what a run has to come to.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

ENGINE, CALLER = "engine", "caller"
"""Whose requests are spoiled: those of Lambdas that read queues, which are given their messages again; and those for
which somebody waits (the API, a push), who would have to ask again, so that boto3's own tries have to be enough."""
_MOST_FOR_CALLERS = 2  # refusals in a row: boto3 asks four times


@dataclass(slots=True)
class Unkindness:
    """What an account does to Stepwell, each with its chance from 0 (never) to 1 (always).

    A test that has the same seed and makes the same requests in the same order is treated in the same way. Steps that
    run at the same time may end in another order, and what follows is then drawn by others.
    """

    seed: str = "1"
    small_batches: float = 0.6
    """A Lambda is given fewer messages than are there: one, two, three, five or seven."""
    reordering: float = 0.4
    """Messages that can be received are received in another order than they were sent."""
    duplicates: float = 0.15
    """SQS delivers a message once more after it was deleted, then or up to ten minutes later; its receive count may be
    1 again. https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/standard-queues-at-least-once-delivery.html"""
    twins: float = 0.1
    """What a message says comes in a second one: EventBridge and Lambda's destinations deliver at least once.
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html"""
    overlaps: float = 0.1
    """The visibility timeout passes while a batch is handled: another Lambda is given the same messages, and is done
    with them before the first goes on."""
    throttling: float = 0.04
    """A service refuses a request, and the next ones of this kind: so often that boto3 may give up."""
    longest_throttling: int = 7
    """How many requests are refused in a row at most. boto3 asks four times."""
    lost_answers: float = 0.03
    """A request to DynamoDB, SQS, EventBridge or for an invocation is carried out, and answered with an error of the
    service; boto3 asks again."""
    partial_failures: float = 0.15
    """Of a batch of SQS, EventBridge or DynamoDB, a part is refused."""
    repeated_invocations: float = 0.1
    """Lambda runs an asynchronous invocation twice, with the same request id.
    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html"""
    new_functions: float = 0.5
    """A Lambda that was just made is pending for a while, one that is being changed cannot be changed, and the role of
    a new one cannot be assumed yet. https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html"""
    unknown_functions: float = 0.2
    """A Lambda that was made within the last minute is not found when it is invoked."""
    lagging_indexes: float = 0.3
    """What was written within the last second is not in the table's index yet, for the Lambdas that read queues and
    `tick`. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html"""
    lagging_lists: float = 0.3
    """ECS does not list its tasks yet."""

    done: Counter[str] = field(default_factory=Counter, init=False)
    """What was done, and how often; written into the report of a test that fails."""
    _draws: Counter[str] = field(default_factory=Counter, init=False)
    _refusals: Counter[str] = field(default_factory=Counter, init=False)
    _bursts: Counter[str] = field(default_factory=Counter, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)  # type: ignore[type-arg, unused-ignore]
    _actor: str | None = field(default=None, init=False)
    _overlap: tuple[int, Callable[[], None]] | None = field(default=None, init=False)

    @classmethod
    def only(cls, seed: str = "1", **chances: float) -> Unkindness:
        """Nothing but what is named, each with its chance."""
        kind = {
            field.name: 0.0 for field in fields(cls) if field.init and field.name not in ("seed", "longest_throttling")
        }
        return cls(seed, **{**kind, **chances})  # type: ignore[arg-type]

    # --- drawing ---------------------------------------------------------------------------------------------------

    def happens(self, kind: str, chance: float) -> bool:
        """Whether it happens this time. The n-th draw of a kind depends on nothing else that was drawn."""
        return self.fraction(kind) < chance

    def below(self, kind: str, limit: int) -> int:
        """A number from 0."""
        return int(self.fraction(kind) * limit)

    def fraction(self, kind: str) -> float:
        with self._lock:
            self._draws[kind] += 1
            text = f"{self.seed}/{kind}/{self._draws[kind]}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64

    def note(self, what: str) -> None:
        with self._lock:
            self.done[what] += 1

    def __str__(self) -> str:
        done = ", ".join(f"{what} {n} times" for what, n in sorted(self.done.items()))
        return f"seed {self.seed!r}: {done or 'nothing was done'}"

    # --- whose requests --------------------------------------------------------------------------------------------

    @contextmanager
    def acting(self, actor: str) -> Iterator[None]:
        """Requests that are made meanwhile, by whatever thread, are this one's: ENGINE or CALLER. Others are spared,
        as those of tests are."""
        before, self._actor = self._actor, actor
        try:
            yield
        finally:
            self._actor = before

    @property
    def actor(self) -> str | None:
        return self._actor

    def may_refuse(self, operation: str) -> bool:
        """Whether this request may be refused in any way; whoever refuses it calls `refused`."""
        return self._actor == ENGINE or (self._actor == CALLER and self.refusals(operation) < _MOST_FOR_CALLERS)

    def refused(self, operation: str, how: str) -> None:
        with self._lock:
            self._refusals[_mine(operation)] += 1
        self.note(f"{how} {operation}")

    def refusals(self, operation: str) -> int:
        """How many this thread saw in a row."""
        return self._refusals[_mine(operation)]

    def accepted(self, operation: str) -> None:
        with self._lock:
            self._refusals[_mine(operation)] = 0

    def throttles(self, operation: str) -> bool:
        """Whether a request is refused since it is one too many."""
        if not self.may_refuse(operation):
            return False
        with self._lock:
            if self._bursts[operation] == 0 and self.happens(f"throttling {operation}", self.throttling):
                self._bursts[operation] = 1 + self.below("length", self.longest_throttling)
            if self._bursts[operation] == 0:
                return False
            self._bursts[operation] -= 1
        self.refused(operation, "throttled")
        return True

    # --- two Lambdas at the same messages ----------------------------------------------------------------------------

    @contextmanager
    def overlapping(self, other: Callable[[], None]) -> Iterator[None]:
        """Do `other` in the middle, before one of the first requests; or not at all."""
        if self._overlap is None and self.happens("overlaps", self.overlaps):
            self._overlap = self.below("overlap", 12), other
        try:
            yield
        finally:
            self._overlap = None

    def before_request(self) -> None:
        """Called before each request of ENGINE."""
        with self._lock:
            if self._overlap is None:
                return
            left, other = self._overlap
            self._overlap = (left - 1, other) if left else None
            if left:
                return
        self.note("gave a batch to two Lambdas")
        other()


def _mine(operation: str) -> str:
    """A thread makes one request after the other, so that those in a row are the tries of one."""
    return f"{operation} of {threading.get_ident()}"
