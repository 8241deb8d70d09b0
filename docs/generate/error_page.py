"""The page reference/error-kinds.md. The kinds are found in the code; the explanations are written here."""

from __future__ import annotations

from typing import NamedTuple

from kinds import kinds
from tables import source, table


class Kind(NamedTuple):
    when: str
    retried: str
    do: str


KINDS = {
    "exit": Kind(
        "The program ended with an exit code other than 0.",
        "yes; with a `status` of 4xx in the output only 408, 425 and 429",
        "Read the attempt's log (`stepwell runs show RUN`). The message ends with the last line of stderr.",
    ),
    "status": Kind(
        "The output is an object whose `status` or `statusCode` is from 400 to 599.",
        "408, 425, 429 and 5xx",
        "The step reported the failure itself. Read `output` of the error.",
    ),
    "http": Kind(
        "An `http` step got a status of 300 or more, or no answer.",
        "no answer, 408, 425, 429 and 5xx",
        "Check the address and the server behind it. Redirects are not followed: write the final address into `url`.",
    ),
    "exception": Kind(
        "A Lambda handler or a Celery task raised an exception, or a Faktory worker reported that the job failed.",
        "yes; with a `status` of 4xx in the result that a Faktory worker has sent only 408, 425 and 429",
        "Read the message and the attempt's log for the stack trace.",
    ),
    "crash": Kind(
        "The process was killed by a signal, ran out of memory, or ended before it reported a result. A WebAssembly "
        "module trapped, or used all of its `fuel`.",
        "yes, but not if the fuel was used",
        "Raise `memory` or `fuel` in the runtime if the message names it. Otherwise read the attempt's log.",
    ),
    "timeout": Kind(
        "The attempt did not end within the step's `timeout`. The program and all processes that it started are killed.",
        "yes",
        "Raise `timeout`, or split the step. On AWS, `lambda` and `http` steps have at most 15 minutes; `docker` steps "
        "have no such limit.",
    ),
    "start": Kind(
        "The program, handler, container or address could not be started or called at all.",
        "only if the reason may pass, such as a lack of processes or a registry that does not answer",
        "The message names what is missing: a program on PATH, a module, an image, a handler.",
    ),
    "values_unavailable": Kind(
        "On AWS, the step's secrets or the values of `.env` could not be read at the start.",
        "yes",
        "If it lasts, check that the parameters exist and that the step's role may read them.",
    ),
    "invalid_output": Kind(
        "The output is JSON that cannot be stored exactly, or a handler returned a value that is not JSON.",
        "no",
        "Print valid JSON: text in UTF-8, numbers that fit 64 bits or a double, at most 128 levels.",
    ),
    "output_too_large": Kind(
        "The output has more than 256 KiB.", "no", "Store it elsewhere and print a reference, such as a URL or a key."
    ),
    "input_too_large": Kind(
        "The event and the outputs of the steps before it have more than 640 KiB together.",
        "no",
        "Let earlier steps store large data elsewhere and print a reference.",
    ),
    "input_lost": Kind(
        "An output that belongs to the input is not stored any more, for example because it was deleted by hand.",
        "no",
        "Rerun the run, or rerun it from the step whose output is missing.",
    ),
    "lost": Kind(
        "The server or worker of the attempt was lost. The next attempt is queued at once and uses up no retry.",
        "yes; the fourth loss of a step is final",
        "If a step is lost again and again, check whether it takes down the machine, for example its memory.",
    ),
    "stopped": Kind(
        "The attempt was stopped before it ended: the container was stopped by hand, or the server was shut down.",
        "on AWS",
        "Rerun the run from this step if no attempt follows.",
    ),
    "no_answer": Kind(
        "On AWS, a Lambda that a step names by `arn` gave no result. Lambda drops answers of about 1 MB or more.",
        "no",
        "Let the Lambda answer less, and check that its role may send messages to the queue of outcomes.",
    ),
    "code_changed": Kind(
        "On one machine, the stored code of the version was changed, and the original is not there any more.",
        "no",
        "Restore the code from a backup, or make a new version and rerun. See [the code of a step](step-code.md).",
    ),
    "condition_failed": Kind(
        "The `if` or `wait.until` of an edge has no value, for example because a key is missing. The run fails. Its error names the edge, and as `step` the step that the edge leads to, which has not run. The step before it keeps its result.",
        "no",
        "Write `has(data.x) && data.x > 1` where a value may be missing, then rerun. `edge` names the edge.",
    ),
    "approval_timeout": Kind(
        "Nobody decided on an approval in time.", "no", "Handle it with an edge `on: failure`, or raise the timeout."
    ),
    "emit_failed": Kind(
        "A step of type `emit` cannot send its event: an expression has no value, or the event is not valid or too large.",
        "no",
        "The message names the field. Write `has(...)` where a value may be missing.",
    ),
    "event_refused": Kind(
        "The event of a step of type `emit` does not match its schema, which refuses it.",
        "no",
        "`output.errors` of the error has the places. Correct the step's `data`, or the [schema](../concepts/schemas.md).",
    ),
    "message_failed": Kind(
        "The `message` of an approval contains an expression that has no value.",
        "no",
        "Write `has(...)` in the message where a value may be missing.",
    ),
    "arguments_failed": Kind(
        "The `args` or `kwargs` of a `celery` or `faktory` step have no value, or one of the wrong type. Nothing was sent.",
        "no",
        "Write `has(...)` where a value may be missing. `args` must be a list, `kwargs` a map.",
    ),
    "broker": Kind(
        "The broker of a `celery` step could not be reached, or did not accept the task.",
        "yes",
        "Check the address and the broker behind it. The message shows the address without the password.",
    ),
    "revoked": Kind(
        "The task of a `celery` step was revoked by somebody else, so no worker runs it.",
        "no",
        "Rerun the run if the task is to run after all.",
    ),
    "unknown": Kind(
        "The run failed, but the error of the step is not stored any more.", "", "Rerun the run to see the error."
    ),
}

PAGE = """\
# Error kinds

{source}

Every failed attempt, step and run has an `error` with a `kind`. A kind never changes its meaning, so programs can depend
on it; messages are for people and may change.

```json
{{
  "kind": "exit",
  "message": "exit code 1: no such file",
  "status": null,
  "output": null
}}
```

`status` is the HTTP status that the step or the address reported. `output` is what the step printed, if that is an object.
The `error` of a run has the `step` too.

**Retried** means that a next attempt follows while [`retries.attempts`](definition.md#stepsidretries) is not used up. When
no attempt follows, the step is `failed`. An edge with `on: failure` or `on: always` can handle this; otherwise the run
fails. A step reads the errors of the steps before it in [`errors`](step-contract.md).

{kinds}
A wrong *request* has no kind: the API answers with a [problem document](http-api.md). A wrong *definition* is refused when
it is loaded, with file and line: `stepwell validate`.
"""


def page() -> str:
    """The content of the page."""
    if set(KINDS) != kinds():
        raise ValueError(f"error_page.py and the code differ in the kinds {sorted(set(KINDS) ^ kinds())}")
    rows = [(f"`{name}`", *kind) for name, kind in KINDS.items()]
    found = source("the kinds in the code and the explanations in docs/generate/error_page.py")
    return PAGE.format(source=found, kinds=table(("kind", "when", "retried", "what to do"), rows))
