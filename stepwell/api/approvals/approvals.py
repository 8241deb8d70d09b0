"""Approvals over HTTP: `/v1/approvals` lists open approvals; a link leads to a page for people, and to `POST` for
programs.

Opening a link decides nothing, because mail scanners follow links. The token of the link authorises the decision, so no
API key is needed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import parse_qs

import orjson
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from stepwell.api.approvals.request import ApprovalRequest
from stepwell.api.http.body import body_of, check_object, read_object
from stepwell.api.http.problem import Problem
from stepwell.api.openapi import Operation
from stepwell.api.paging import PAGING, page, paging
from stepwell.api.views import models
from stepwell.api.views.runs import open_approvals
from stepwell.core.plan import Plan
from stepwell.core.run.approvals import (
    MOST_BY,
    MOST_COMMENT,
    Link,
    Links,
    Standing,
    approval_message,
    decided,
    has_values,
    standing,
)
from stepwell.core.run.messages import Outcome
from stepwell.core.run.run import Run, StepStatus
from stepwell.core.signing import KeysUnreadable, UnknownKey
from stepwell.core.times import time_text
from stepwell.reader import AttemptRow, Page, RunDetail

_MAX_BYTES = 64 * 1024  # of a decision

DECISION: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "comment": {"type": ["string", "null"], "maxLength": MOST_COMMENT, "description": "The reason."},
        "by": {"type": ["string", "null"], "maxLength": MOST_BY, "description": "The name of the person who decides."},
    },
}


class Approvals(Protocol):
    """The approvals of a platform. Methods are called from any thread."""

    def now(self) -> int: ...

    def links(self) -> Links: ...

    def read_asking(self, *, before: int | None, limit: int) -> Page[RunDetail]:
        """Runs with open approvals, newest first, with the approval messages and without logs."""

    def read_asked(self, run_id: str) -> RunDetail | None:
        """The current state of one run, with the approval messages and without logs."""

    def decide(self, link: Link, outcome: Outcome) -> bool:
        """Ends an approval with this outcome. Returns False if it was no longer open."""


@dataclass(frozen=True, slots=True)
class ApprovalApi:
    approvals: Approvals

    def list_approvals(self, request: Request) -> Any:
        runs = self.approvals.read_asking(**paging(request))
        found = [open_approval for detail in runs.items for open_approval in self._open(detail)]
        return page(Page(found, runs.next), lambda view: view)

    def _open(self, detail: RunDetail) -> list[models.OpenApproval]:
        run, plan = detail.run, detail.plan
        return [
            {
                "run_id": run.id,
                "function_id": plan.function_id,
                "function_version": plan.version,
                "step_id": plan.steps[i].id,
                "user": detail.user,
                "requested_at": time_text(run.steps[i].at),
                **view,
            }
            for i, view in open_approvals(detail, self.approvals.links).items()
        ]

    def admit(self, request: Request) -> None:
        """Checks the token of a link, before the body is read. Raises Problem 404."""
        self._read_link(request.path_params["token"])

    def decide_approval(self, request: Request) -> Any:
        body = read_object(request.state.body, DECISION)
        comment, by = (body.get(name) for name in DECISION["properties"])
        approval_request, has_decided = self.decide(request.path_params["token"], comment, by)
        if not has_decided:
            decision = {} if approval_request.output is None else {"decided": approval_request.output}
            raise Problem(
                409 if approval_request.standing is Standing.DECIDED else 410, approval_request.description, **decision
            )
        return {
            "run_id": approval_request.detail.run.id,
            "step_id": approval_request.step_id,
            **(approval_request.output or {}),
        }

    def find(self, token: str) -> ApprovalRequest:
        """The approval of a link. Raises Problem 404."""
        link = self._read_link(token)
        detail = self.approvals.read_asked(link.run_id)
        if detail is None:
            raise _no_approval()
        stands = standing(detail.run, link, self.approvals.now())
        outputs = [row.output for row in detail.attempts if (row.step, row.attempt) == (link.step, link.attempt)]
        output = orjson.loads(outputs[0]) if stands is Standing.DECIDED and outputs and outputs[0] else None
        return ApprovalRequest(link, detail, stands, output)

    def _read_link(self, token: str) -> Link:
        """Reads and verifies a token. Raises Problem 404, 429 or 503."""
        try:
            link = self.approvals.links().read(token)
        except UnknownKey:
            text = "the server does not have the key that signed this link yet; try again in a few seconds"
            raise Problem(429, text, {"retry-after": "5"}) from None
        except KeysUnreadable:
            raise keys_unreadable() from None
        if link is None:
            raise _no_approval()
        return link

    def decide(self, token: str, comment: str | None, by: str | None) -> tuple[ApprovalRequest, bool]:
        """Decides on an approval. Returns the new state, and whether this call has decided it. Raises Problem 404 or
        503."""
        approval_request = self.find(token)
        if approval_request.standing is not Standing.OPEN:
            return approval_request, False
        outcome = decided(approval_request.link.decision, comment, by, self.approvals.now())
        has_decided = self.approvals.decide(approval_request.link, outcome)
        return self.find(token), has_decided


def _no_approval() -> Problem:
    reasons = "the link was changed, the run was deleted, or the key that signed the link was dropped"
    return Problem(404, f"there is no such approval: {reasons}")


def keys_unreadable() -> Problem:
    """The error response while the keys that sign and verify links cannot be read."""
    return Problem(503, "the signing keys cannot be read now; try again", {"retry-after": "1"})


APPROVAL_OPERATIONS = (
    Operation("GET", "/v1/approvals", "list_approvals", "List open approvals with their links, newest runs first",
              models.ApprovalList, PAGING),
    Operation("POST", "/v1/approvals/{token}", "decide_approval",
              "Approve or decline, depending on the token of a link; needs no API key",
              models.DecisionView, errors=(409, 410, 503), body=DECISION, needs_body=False, is_public=True),
)  # fmt: skip


def messages_of(plan: Plan, run: Run, attempts: Sequence[AttemptRow], event: Callable[[], Any]) -> dict[int, str]:
    """The messages of open and past approvals, by step index. `event` returns the run's event as JSON data."""
    steps = [i for i in plan.approval_steps if run.steps[i].attempt]
    if not steps:
        return {}
    outputs = {row.step: row.output for row in attempts if row.output is not None}
    errors = {row.step: row.error for row in attempts if row.error and run.steps[row.step].status is StepStatus.FAILED}
    trigger = event() if any(has_values(plan.steps[i].runtime.message) for i in steps) else {}
    return {i: approval_message(plan, run, i, trigger, outputs, errors).text for i in steps}


# --- requests --------------------------------------------------------------------------------------------------------


def page_routes(approval_api: ApprovalApi) -> list[Route]:
    """The routes of the approval page and of the form on it."""

    def show(request: Request) -> Response:
        return _page(lambda: (approval_api.find(request.path_params["token"]), None))

    async def decide(request: Request) -> Response:
        try:
            await run_in_threadpool(approval_api.admit, request)
            body = await body_of(request, _MAX_BYTES)
        except Problem as problem:
            return _refused(problem)
        return await run_in_threadpool(
            _page, lambda: approval_api.decide(request.path_params["token"], *_read_form(body))
        )

    return [
        Route("/approvals/{token}", show, methods=["GET"]),
        Route("/approvals/{token}", decide, methods=["POST"]),
    ]


def _page(do: Callable[[], tuple[ApprovalRequest, bool | None]]) -> Response:
    from stepwell.api.approvals.page import answer  # imported late: few requests need it

    try:
        return answer(*do())
    except Problem as problem:
        return _refused(problem)


def _refused(problem: Problem) -> Response:
    from stepwell.api.approvals.page import refusal

    return refusal(problem)


def _read_form(body: bytes) -> tuple[str | None, str | None]:
    """The comment and name in the page's form. Browsers send each end of a line as CR LF. Raises Problem 400."""
    try:
        form = parse_qs(body.decode(errors="replace"), max_num_fields=10)
    except ValueError:
        raise Problem(400, "the request is not a form of the approval page") from None
    fields = {name: form[name][0].replace("\r\n", "\n") if name in form else None for name in DECISION["properties"]}
    check_object(fields, DECISION)
    return fields["comment"], fields["by"]
