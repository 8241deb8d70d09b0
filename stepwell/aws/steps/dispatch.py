"""Starts attempts on AWS: as asynchronous invocations of Lambdas, or as tasks on ECS.

Implements `platform.Dispatcher`. There are no slots: every attempt is claimed in the commit that queues it. Attempts
start in threads, and `finish` waits for them. An attempt that could not be started is retried by a message for this
attempt alone, so that other attempts of the same batch are not started again.
"""

from __future__ import annotations

import logging
import random
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING

import orjson

from stepwell.aws.clients import client
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.versions import Target
from stepwell.aws.observability import count
from stepwell.aws.queues.envelope import INGEST, accepted_by_sqs
from stepwell.aws.queues.messages import delay_s, entry, outcome_message, start_again_message
from stepwell.aws.queues.outbox import put_events, send_messages
from stepwell.aws.resources import Resources
from stepwell.aws.signing.tokens import Tokens
from stepwell.aws.steps.errors import Busy, NeverStarts, NotFound
from stepwell.core.events.events import Event
from stepwell.core.run.invalid_events import INVALID_EVENT
from stepwell.core.run.outcome import failure
from stepwell.platform import Attempt, AttemptId, Effects, FreeSlots, IncomingEvent

if TYPE_CHECKING:
    from stepwell.aws.steps.containers import Containers

log = logging.getLogger("stepwell.dispatch")
SOURCE = "stepwell.engine"  # the source of the engine's own events on the bus
_PARALLEL = 32
_NO_LIMIT = FreeSlots(1_000_000_000, 1_000_000_000)
# Throttled, or not ready: Lambda removes the network interfaces of a function in a VPC that was idle for weeks, and
# creates them again at the next invocation. https://docs.aws.amazon.com/lambda/latest/dg/functions-states.html and
# https://docs.aws.amazon.com/lambda/latest/api/API_Invoke.html
_BUSY_CODES = frozenset(
    {
        "TooManyRequestsException",
        "ResourceConflictException",
        "ResourceNotReadyException",
        "ENINotReadyException",
        "ENILimitReachedException",
        "EC2ThrottledException",
        "SubnetIPAddressLimitReachedException",
    }
)
_NEW_LAMBDA_MS = 60_000  # how long "not found" is retried: Lambda's API may not know a new function yet
_SHORTEST_DELAY_MS, _LONGEST_DELAY_MS = 1000, 60_000  # until an attempt that could not be started is tried again


class LambdaDispatcher:
    def __init__(self, resources: Resources, registry: Registry, tokens: Tokens) -> None:
        self._resources, self._registry, self._tokens = resources, registry, tokens
        self._pool = ThreadPoolExecutor(_PARALLEL)
        self._started: list[tuple[Attempt, Future[None]]] = []
        self._events: list[Event] = []
        self._stopped: set[str] = set()  # ids of runs
        self._own_containers: Containers | None = None
        self._limited = Effects()

    # --- called by the engine --------------------------------------------------------------------------------------

    def slots(self) -> FreeSlots:
        """More slots than there can be attempts, so that none is queued."""
        return _NO_LIMIT

    def carry_out(self, effects: Effects) -> Sequence[IncomingEvent]:
        """Starts attempts in threads, and collects stops and events. Returns the events that the engine must accept.

        Containers are stopped per run, by the caller (`take_stopped`); a Lambda cannot be stopped. All events are put
        on the bus. The engine accepts only events that start or resume a function. Events of steps are put on the bus
        at once, as `ingest` does. Raises NotSent.
        """
        if effects.emitted:
            self._put([incoming.event for incoming in effects.emitted], INGEST)
        self._note_limited(effects)
        self._started += [(attempt, self._pool.submit(self._start, attempt)) for attempt in effects.starts]
        self._stopped.update(run_id for run_id, _, _ in effects.stops)
        self._events += [incoming.event for incoming in effects.events]
        for incoming in effects.events:
            if incoming.event.name == INVALID_EVENT:
                count("EventsInvalid")
        if not effects.events:
            return ()
        catalog = self._registry.catalog()
        return [incoming for incoming in effects.events if catalog.is_wanted(incoming.event.name)]

    @property
    def outcomes_queue(self) -> str:
        return self._resources.outcomes_queue

    def _note_limited(self, effects: Effects) -> None:
        noted = self._limited
        noted.queued += effects.queued
        noted.held += effects.held
        noted.ended += effects.ended
        noted.released += effects.released

    # --- called after each batch -----------------------------------------------------------------------------------

    def finish(self, now: int) -> None:
        """Waits until the attempts have started, and sends messages for those that have not. Raises NotSent.

        An attempt that may not have started is tried again later. One that can never start gets a failed outcome.
        """
        started, self._started = self._started, []
        later: list[Attempt] = []
        refused: list[bytes] = []
        for attempt, future in started:
            name = _name(attempt)
            try:
                future.result()
            except NeverStarts as reason:
                if isinstance(reason, NotFound) and _waited(attempt, now) < _NEW_LAMBDA_MS:
                    later.append(attempt)
                    continue
                refused.append(
                    outcome_message(*name, self._tokens.of(*name), failure("start", str(reason), retryable=False))
                )
            except Busy as reason:
                log.info("start delayed: step %s of run %s, attempt %s: %s", name[1], name[0], name[2], reason)
                later.append(attempt)
            except Exception as error:  # no connection, an error in AWS, no permission
                log.warning("start uncertain: step %s of run %s, attempt %s: %s", name[1], name[0], name[2], error)
                if _waited(attempt, now) < self._resources.event_age_s * 1000:
                    later.append(attempt)
                else:
                    outcome = failure("start", f"the attempt could not be started in time: {error}")
                    refused.append(outcome_message(*name, self._tokens.of(*name), outcome))
        send_messages(self._resources.outcomes_queue, [entry(body) for body in refused])
        self._start_later(later, now)
        self._put_events()

    def _start_later(self, attempts: Sequence[Attempt], now: int) -> None:
        """Sends, for each attempt, a delayed message that starts it. The delay grows with the time that the attempt has
        waited. Raises NotSent."""
        messages = []
        for attempt in attempts:
            name, waited = _name(attempt), _waited(attempt, now)
            due = now + round(min(_LONGEST_DELAY_MS, max(_SHORTEST_DELAY_MS, waited)) * random.uniform(0.5, 1))
            messages.append(entry(start_again_message(*name, self._tokens.of(*name), due), delay_s(due, now)))
        send_messages(self._resources.outcomes_queue, messages)

    def take_limited(self) -> Effects:
        """What the limits of starts must know: the starts that need permits and those that have ended."""
        limited, self._limited = self._limited, Effects()
        return limited

    @property
    def started(self) -> set[AttemptId]:
        """The attempts that were started in this batch."""
        return {(attempt.record.run.id, attempt.step, attempt.attempt) for attempt, _ in self._started}

    def take_stopped(self) -> set[str]:
        """The ids of runs whose containers must be stopped, since the last call."""
        stopped, self._stopped = self._stopped, set()
        return stopped

    def _put_events(self) -> None:
        events, self._events = self._events, []
        self._put(events, SOURCE)

    def _put(self, events: Sequence[Event], source: str) -> None:
        put_events(
            [
                {
                    "Source": source,
                    "DetailType": event.name,
                    "Detail": accepted_by_sqs(event.body),
                    "EventBusName": self._resources.bus,
                }
                for event in events
            ]
        )

    @property
    def containers(self) -> Containers:
        """Imported on first use: most Lambdas never start a container."""
        if self._own_containers is None:
            from stepwell.aws.steps.containers import Containers

            self._own_containers = Containers(self._resources)
        return self._own_containers

    def _start(self, attempt: Attempt) -> None:
        plan = attempt.record.plan
        step = plan.steps[attempt.step]
        token = self._tokens.of(attempt.record.run.id, step.id, attempt.attempt)
        document = with_token(attempt.input, token)
        if step.runtime.type == "http":
            call = {"stepwell": "http", "url": step.runtime.url, "headers": dict(step.runtime.headers)}
            values = {"env": dict(step.env), "secrets": step.secrets, "timeout_ms": step.timeout_ms}
            body = orjson.dumps({**call, **values, "input": orjson.Fragment(document)})
            self._invoke(self._resources.step_http, body)
            return
        target = self._target(plan.function_id, plan.version, step.id)
        if "lambda" in target:
            self._invoke(target["lambda"], document)
            return
        self.containers.start(
            run_id=attempt.record.run.id,
            step_id=step.id,
            attempt=attempt.attempt,
            input=attempt.input,
            token=token,
            target=target,
            timeout_ms=step.timeout_ms,
        )

    def _target(self, function_id: str, version: int, step_id: str) -> Target:
        target = self._registry.version(function_id, version).targets.get(step_id)
        if target is None:
            raise NeverStarts(f"version {version} of {function_id} has no target for step {step_id}; push it again")
        return target

    def _invoke(self, function: str, payload: bytes) -> None:
        lambdas = client("lambda")
        errors = lambdas.exceptions
        try:
            lambdas.invoke(FunctionName=function, InvocationType="Event", Payload=payload)
        except errors.ResourceNotFoundException:
            raise NotFound(f"there is no Lambda {function}; create it with `stepwell push`") from None
        except (errors.RequestTooLargeException, errors.InvalidRequestContentException) as error:
            raise NeverStarts(f"Lambda rejects the input: {error}") from None
        except errors.ClientError as error:
            if error.response["Error"]["Code"] not in _BUSY_CODES:
                raise
            raise Busy(str(error)) from None


def _name(attempt: Attempt) -> tuple[str, str, int]:
    record = attempt.record
    return record.run.id, record.plan.steps[attempt.step].id, attempt.attempt


def _waited(attempt: Attempt, now: int) -> int:
    """Milliseconds since the attempt was first due."""
    return now - attempt.record.run.steps[attempt.step].at


def with_token(document: bytes, token: str) -> bytes:
    """The step's input with the attempt's token in `ctx`, which is the last field of the input."""
    return b'%b,"token":"%b"}}' % (document[:-2], token.encode())
