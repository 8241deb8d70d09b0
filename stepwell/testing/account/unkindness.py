"""Faults that AWS may produce at any time, and that an emulator does not produce by itself.

`Unkindness` decides, by a seed, which requests and messages are affected. `unkind_requests` and `pollers` inject the
faults. Only faults that AWS documents are injected, and none that changes the final result of a run.
"""

from __future__ import annotations

import hashlib
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields

ENGINE, CALLER = "engine", "caller"
"""Whose requests are affected. ENGINE: Lambdas that read queues; they get a failed message again. CALLER: code
with a waiting caller (the API, a push); it does not repeat a request, so boto3's own retries must be enough."""
_MOST_FOR_CALLERS = 2  # refusals in a row: boto3 tries four times


@dataclass(slots=True)
class Unkindness:
    """The faults that an account injects, each with a probability from 0 (never) to 1 (always).

    Tests with the same seed that make the same requests in the same order get the same faults. Steps that run at the
    same time may end in a different order, and then the later faults hit different requests.
    """

    seed: str = "1"
    small_batches: float = 0.6
    """A Lambda gets fewer messages than there are: one, two, three, five or seven."""
    reordering: float = 0.4
    """Messages are received in a different order than they were sent."""
    duplicates: float = 0.15
    """SQS delivers a deleted message again, at once or up to ten minutes later. The receive count may be 1.
    https://docs.aws.amazon.com/AWSSimpleQueueService/latest/SQSDeveloperGuide/standard-queues-at-least-once-delivery.html"""
    twins: float = 0.1
    """A second message has the same content: EventBridge and Lambda's destinations deliver at least once.
    https://docs.aws.amazon.com/eventbridge/latest/userguide/eb-rule-retry-policy.html"""
    overlaps: float = 0.1
    """The visibility timeout ends while a batch is processed: another Lambda gets the same messages, and finishes them
    before the first continues."""
    throttling: float = 0.04
    """A service refuses a request, and the next requests of this kind; boto3 may give up."""
    longest_throttling: int = 7
    """How many requests are refused in a row at most. boto3 tries four times."""
    lost_answers: float = 0.03
    """A request to DynamoDB, SQS or EventBridge, or an invocation, is carried out, but answered with a server error;
    boto3 repeats it."""
    partial_failures: float = 0.15
    """A part of a batch of SQS, EventBridge or DynamoDB is refused."""
    repeated_invocations: float = 0.1
    """Lambda runs an asynchronous invocation twice, with the same request id.
    https://docs.aws.amazon.com/lambda/latest/dg/invocation-async-error-handling.html"""
    new_functions: float = 0.5
    """A new Lambda is pending for a while, a Lambda that is being changed cannot be changed, and the role of a new one
    cannot be assumed yet. https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html"""
    unknown_functions: float = 0.2
    """A Lambda that was created within the last minute is not found when it is invoked."""
    lagging_indexes: float = 0.3
    """Items written within the last second are missing from the table's index, for the Lambdas that read queues and for
    `tick`. https://docs.aws.amazon.com/amazondynamodb/latest/developerguide/GSI.html"""
    lagging_lists: float = 0.3
    """ECS does not list the tasks yet."""

    done: Counter[str] = field(default_factory=Counter, init=False)
    """The injected faults, each with the number of times. It is part of the report of a failed test."""
    _draws: Counter[str] = field(default_factory=Counter, init=False)
    _refusals: Counter[str] = field(default_factory=Counter, init=False)
    _bursts: Counter[str] = field(default_factory=Counter, init=False)
    _lock: threading.RLock = field(default_factory=threading.RLock, init=False)  # type: ignore[type-arg, unused-ignore]
    _actor: str | None = field(default=None, init=False)
    _overlap: tuple[int, Callable[[], None]] | None = field(default=None, init=False)

    @classmethod
    def only(cls, seed: str = "1", **chances: float) -> Unkindness:
        """Only the faults named in `chances`, each with this probability."""
        kind = {
            field.name: 0.0 for field in fields(cls) if field.init and field.name not in ("seed", "longest_throttling")
        }
        return cls(seed, **{**kind, **chances})  # type: ignore[arg-type]

    # --- drawing ---------------------------------------------------------------------------------------------------

    def happens(self, kind: str, chance: float) -> bool:
        """Whether the fault happens this time. The n-th draw of a kind is independent of draws of other kinds."""
        return self.fraction(kind) < chance

    def below(self, kind: str, limit: int) -> int:
        """A number from 0 to `limit` - 1."""
        return int(self.fraction(kind) * limit)

    def fraction(self, kind: str) -> float:
        with self._lock:
            self._draws[kind] += 1
            text = f"{self.seed}/{kind}/{self._draws[kind]}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest()) / 2**64

    def note(self, fault: str) -> None:
        with self._lock:
            self.done[fault] += 1

    def __str__(self) -> str:
        done = ", ".join(f"{fault} {n} times" for fault, n in sorted(self.done.items()))
        return f"seed {self.seed!r}: {done or 'no faults were injected'}"

    # --- whose requests --------------------------------------------------------------------------------------------

    @contextmanager
    def acting(self, actor: str) -> Iterator[None]:
        """Attributes all requests of all threads within the block to ENGINE or CALLER.

        Other requests, such as those of tests, get no faults.
        """
        before, self._actor = self._actor, actor
        try:
            yield
        finally:
            self._actor = before

    @property
    def actor(self) -> str | None:
        return self._actor

    def may_refuse(self, operation: str) -> bool:
        """Whether this request may be refused in any way. A caller that refuses it must call `refused`."""
        return self._actor == ENGINE or (self._actor == CALLER and self.refusals(operation) < _MOST_FOR_CALLERS)

    def refused(self, operation: str, how: str) -> None:
        with self._lock:
            self._refusals[_per_thread(operation)] += 1
        self.note(f"{how} {operation}")

    def refusals(self, operation: str) -> int:
        """How many refusals in a row this thread has seen."""
        return self._refusals[_per_thread(operation)]

    def accepted(self, operation: str) -> None:
        with self._lock:
            self._refusals[_per_thread(operation)] = 0

    def throttles(self, operation: str) -> bool:
        """Whether a request is refused by throttling."""
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

    # --- two Lambdas with the same messages --------------------------------------------------------------------------

    @contextmanager
    def overlapping(self, other: Callable[[], None]) -> Iterator[None]:
        """Runs `other` before one of the block's first requests, or not at all."""
        if self._overlap is None and self.happens("overlaps", self.overlaps):
            self._overlap = self.below("overlap", 12), other
        try:
            yield
        finally:
            self._overlap = None

    def before_request(self) -> None:
        """Must be called before each request of ENGINE."""
        with self._lock:
            if self._overlap is None:
                return
            left, other = self._overlap
            self._overlap = (left - 1, other) if left else None
            if left:
                return
        self.note("gave a batch to two Lambdas")
        other()


def _per_thread(operation: str) -> str:
    """The key of the refusals in a row.

    A thread makes one request at a time, so consecutive ones are boto3's retries.
    """
    return f"{operation} of {threading.get_ident()}"
