"""The page on which people decide on an approval: one HTML document without scripts and external resources.

All values in it may come from untrusted senders, and are escaped.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from html import escape

from starlette.responses import HTMLResponse, Response

from stepwell.api.approvals.request import ApprovalRequest
from stepwell.api.http.problem import Problem
from stepwell.core.run.approvals import MOST_BY, MOST_COMMENT, Standing
from stepwell.core.times import time_text

_STYLE = """
:root { color-scheme: light dark; --text: #1c1f24; --soft: #5a6270; --back: #f3f4f6; --card: #ffffff;
  --line: #c4c9d1; --edge: #7d8592; --approve: #14723c; --decline: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --text: #e9ebee; --soft: #a3abb8; --back: #15181c; --card: #1f2329;
  --line: #4a515c; --edge: #868f9e; } }
* { box-sizing: border-box; }
body { margin: 0; padding: 1rem; background: var(--back); color: var(--text);
  font: 1rem/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 34rem; margin: 4vh auto; padding: 1.5rem; background: var(--card); border: 1px solid var(--line);
  border-radius: 0.75rem; }
h1 { margin: 0 0 1rem; font-size: 1.3rem; line-height: 1.3; }
h1.approved::before { content: "\\2713\\00a0"; } h1.declined::before { content: "\\2717\\00a0"; }
blockquote { margin: 0 0 1rem; padding: 0.75rem 1rem; border-left: 0.25rem solid var(--line); background: var(--back);
  white-space: pre-wrap; overflow-wrap: anywhere; font-size: 1.1rem; }
dl { display: grid; grid-template-columns: auto 1fr; gap: 0.25rem 1rem; margin: 0 0 1.25rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; white-space: pre-wrap; }
label { display: block; margin-bottom: 0.25rem; } label span, .note { color: var(--soft); }
textarea, input { width: 100%; margin-bottom: 1rem; padding: 0.6rem; border: 1px solid var(--edge);
  border-radius: 0.4rem; background: var(--card); color: inherit; font: inherit; }
button { width: 100%; padding: 0.75rem; border: 0; border-radius: 0.4rem; color: #ffffff; font: inherit;
  font-weight: 600; cursor: pointer; }
button.approved { background: var(--approve); } button.declined { background: var(--decline); }
:focus-visible { outline: 3px solid #4c8dff; outline-offset: 2px; }
.note { margin: 1rem 0 0; font-size: 0.9rem; }
@media (max-width: 26rem) { main { padding: 1rem; } dl { grid-template-columns: 1fr; gap: 0; }
  dt { margin-top: 0.4rem; } }
"""
_HASH = base64.b64encode(hashlib.sha256(_STYLE.encode()).digest()).decode()
_HEADERS = {
    "content-security-policy": f"default-src 'none'; style-src 'sha256-{_HASH}'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'",
    "cache-control": "no-store",
    # Not `no-referrer`: with it, browsers send the form with `Origin: null`, which a development server refuses.
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "x-robots-tag": "noindex, nofollow",
}
_BUTTON = {"approved": "Approve", "declined": "Decline"}
_QUESTION = {"approved": "Do you approve?", "declined": "Do you decline?"}


def answer(approval_request: ApprovalRequest, has_decided: bool | None) -> Response:
    """The page of an approval. `has_decided`: whether this request has decided it; None if it only reads the page."""
    if approval_request.standing is Standing.OPEN:
        return _document(
            200,
            _QUESTION[approval_request.link.decision],
            "",
            [_message(approval_request), _facts(approval_request), _form(approval_request)],
        )
    if approval_request.standing is Standing.DECIDED:
        decision = approval_request.output["decision"] if approval_request.output else ""
        title = f"You {decision}" if has_decided else f"This was {decision or 'decided'} already"
        title = title if has_decided is not None else f"This was {decision or 'decided'}"
        return _document(
            409 if has_decided is False else 200,
            title,
            decision,
            [_message(approval_request), _facts(approval_request)],
        )
    title = (
        "This link has expired" if approval_request.standing is Standing.EXPIRED else "This approval is no longer open"
    )
    note = f'<p class="note">{_sentence(approval_request.description)}</p>'
    return _document(410, title, "", [_message(approval_request), _facts(approval_request), note])


def refusal(problem: Problem) -> Response:
    """The page for a request that is refused, such as a link that is not valid."""
    titles = {404: "This link is not valid", 503: "Please try again"}
    title = titles.get(problem.status, "The request was refused")
    return _document(problem.status, title, "", [f"<p>{_sentence(problem.detail)}</p>"], dict(problem.headers))


def _message(approval_request: ApprovalRequest) -> str:
    return f"<blockquote>{escape(approval_request.detail.asked.get(approval_request.link.step, ''))}</blockquote>"


def _facts(approval_request: ApprovalRequest) -> str:
    plan, output = approval_request.detail.plan, approval_request.output or {}
    step = plan.steps[approval_request.link.step]
    facts = [
        ("Function", f"{escape(plan.function_id)}, step {escape(step.name)}"),
        ("Approvers", escape(", ".join(step.runtime.approvers))),
        (
            "Until",
            _time(time_text(approval_request.link.expires_at)) if approval_request.standing is Standing.OPEN else "",
        ),
        (
            "Decided by",
            escape(output.get("by") or ("" if approval_request.output is None else "someone with the link")),
        ),
        ("At", _time(output["decided_at"]) if output else ""),
        ("Comment", escape(output.get("comment") or "")),
        ("Run", escape(approval_request.detail.run.id)),
    ]
    return f"<dl>{''.join(f'<dt>{name}</dt><dd>{value}</dd>' for name, value in facts if value)}</dl>"


def _sentence(text: str) -> str:
    return escape(f"{text[:1].upper()}{text[1:]}.")


def _time(text: str) -> str:
    return f'<time datetime="{escape(text)}">{datetime.fromisoformat(text):%-d %B %Y, %H:%M} UTC</time>'


def _form(approval_request: ApprovalRequest) -> str:
    decision = approval_request.link.decision
    return f"""<form method="post">
<label for="comment">Comment <span>(optional)</span></label>
<textarea id="comment" name="comment" rows="3" maxlength="{MOST_COMMENT}"></textarea>
<label for="by">Your name <span>(optional)</span></label>
<input id="by" name="by" maxlength="{MOST_BY}" autocomplete="name">
<button class="{decision}">{_BUTTON[decision]}</button>
</form>
<p class="note">The first decision counts and cannot be changed.</p>"""


def _document(status: int, title: str, kind: str, parts: list[str], headers: dict[str, str] | None = None) -> Response:
    body = "\n".join(part for part in parts if part)
    return HTMLResponse(
        f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<main>
<h1 class="{escape(kind)}">{escape(title)}</h1>
{body}
</main>
</body>
</html>
""",
        status,
        headers={**_HEADERS, **(headers or {})},
    )
