"""The page reference/engine-events.md. The names are found in the code; the explanations are written here."""

from __future__ import annotations

from typing import NamedTuple

from tables import source, table

from stepwell.core.events import cron, users
from stepwell.core.routing import guard
from stepwell.core.run import invalid_events, run_events, stored_links
from stepwell.core.run.run import STATUS_NAMES, RunStatus


class EngineEvent(NamedTuple):
    names: tuple[str, ...]
    when: str
    data: dict[str, str]


ERROR = "The run's [error](error-kinds.md) with `step`, `kind`, `message` and `status`, or null."
RUN_ID = "The id of the run."
REPLAY = "The id of the replay that made the run; absent for other runs."

EVENTS = (
    EngineEvent(
        tuple(
            run_events.RUN_EVENTS + STATUS_NAMES[status]
            for status in (RunStatus.COMPLETED, RunStatus.FAILED, RunStatus.CANCELLED)
        ),
        "A run ended. A run that one of these events started sends none, so that no function can start itself forever.",
        {
            "run_id": RUN_ID,
            "function_id": "The function.",
            "function_version": "The version that the run used.",
            "event_id": "The event that started the run.",
            "event_name": "The name of that event.",
            "error": ERROR,
            "cancelled_by": "The id of the event that cancelled the run; absent if no event did.",
            "reason": "`timeout` if the run exceeded a limit of "
            "[`timeouts`](../guides/flow-control.md#timeouts-limits-for-the-time-of-a-run); `singleton` if a later run "
            "with the same key [cancelled it](../guides/flow-control.md#one-run-at-a-time); absent otherwise.",
            "timeout": "The limit: `start` or `finish`; absent with another reason or none.",
            "replaced_by": "The run that took the place of this one; absent with another reason or none.",
            "replay": REPLAY,
        },
    ),
    EngineEvent(
        (stored_links.REQUESTED,),
        "A run waits for an [approval](../guides/approvals.md). Let a function trigger on it, and send the links to "
        "somebody. Whoever has a link can decide.",
        {
            "run_id": RUN_ID,
            "function_id": "The function.",
            "function_version": "The version that the run used.",
            "step_id": "The step of type `approval`.",
            "message": "The question, with the values of the run.",
            "approvers": "The list of the definition.",
            "approve_url": "The link to approve.",
            "decline_url": "The link to decline.",
            "expires_at": "When the time is over (RFC 3339).",
            "replay": REPLAY,
        },
    ),
    EngineEvent(
        (invalid_events.INVALID_EVENT,),
        "An event does not match its [type](../guides/event-types.md).",
        {
            "event_name": "The name of the event.",
            "event_id": "The id of the event.",
            "v": "The version of the type that the event named, or null.",
            "policy": "`reject`: the event was refused; `warn`: it was accepted.",
            "errors": f"At most {invalid_events.MOST_SHOWN} errors: `pointer` (a JSON pointer) and `message`.",
            "more_errors": "How many more errors there are.",
        },
    ),
    EngineEvent(
        (guard.ROLLED_BACK,),
        "A guard took a canary back, because its runs were worse than those of the live version: "
        "[versions](../guides/versions.md).",
        {
            "function_id": "The function.",
            "version": "The version that was the canary.",
            "to": "The version that all new runs use now.",
            "reason": "Why, in words.",
            "weight": "The canary's share of the new runs, from 0 to 1.",
            "canary": "`runs`, `failed` and `median_ms` of the canary.",
            "live": "The same numbers of the live version.",
            "p_failures": "How likely such a difference in failures is by chance, from 0 to 1, or null.",
            "p_durations": "The same for durations.",
        },
    ),
    EngineEvent(
        (cron.TICK,),
        "The time of a `cron` trigger has come. It starts that function only.",
        {"cron": "The expression of the trigger.", "scheduled_at": "The time that was due (RFC 3339, UTC)."},
    ),
)

PAGE = """\
# Events of the engine

{source}

The engine sends events, too. Their names begin with `stepwell/`. Functions can trigger on them and wait for them like on
any other event, with the exact name: a prefix such as `*` never matches them. Senders cannot send them
(400), except `stepwell/identify`. Their `user` is the user of the event that started the run.

{events}
## `{identify}`

This is the only name below `stepwell/` that you may send. It tells something about a user and starts functions like any
other event: [users](../guides/users.md).

{fields}"""


def page() -> str:
    """The content of the page."""
    fields = {
        "traits": "Further traits of `user`.",
        "previous_id": "Another id of the same user: text, or an object like `user`.",
    }
    found = source("the names in the code and the explanations in docs/generate/event_page.py")
    events = "\n".join(map(_section, EVENTS))
    return PAGE.format(source=found, events=events, identify=users.IDENTIFY, fields=_fields(fields))


def _section(event: EngineEvent) -> str:
    names = ", ".join(f"`{name}`" for name in event.names)
    return f"## {names}\n\n{event.when}\n\n{_fields(event.data)}"


def _fields(data: dict[str, str]) -> str:
    return table(("field of `data`", "meaning"), [(f"`{name}`", text) for name, text in data.items()])
