"""Computes how long a run may take. Stepwell must store everything that the run may need for this long.

The result is an upper bound, except that a step may return any `retry_after`. Most runs end long before.
"""

from __future__ import annotations

from stepwell.core.duration import LONGEST_MS
from stepwell.core.plan import TRIGGER, Plan, Step
from stepwell.core.run.attempt_result import MAX_LOSSES

_UNSEEN_MS = 7 * 3_600_000  # the maximum time until an attempt starts, or until a lost attempt is noticed


def longest_run_ms(plan: Plan) -> int:
    """The maximum duration of a run: that of the slowest path, if all attempts, delays and ttls are used up, or up to
    the limits in `timeouts` if these end the run before."""
    ends = {TRIGGER: 0}
    for i in sorted(range(len(plan.steps)), key=lambda i: len(plan.steps[i].ancestors)):  # parents come first
        edges = [plan.edges[e] for e in plan.steps[i].edges]
        start = max((ends[edge.parent] + _pause_ms(plan, edge.pause) for edge in edges), default=0)
        ends[i] = start + _step_ms(plan.steps[i])
    longest = max(ends.values())
    if not plan.finish_timeout_ms:
        return longest
    until_start = max(_pause_ms(plan, plan.edges[e].pause) for e in plan.roots) + _UNSEEN_MS
    if plan.start_timeout_ms:
        until_start = plan.start_timeout_ms
    return min(longest, until_start + plan.finish_timeout_ms + _UNSEEN_MS)


def _pause_ms(plan: Plan, pause: int | None) -> int:
    if pause is None:
        return 0
    value = plan.pauses[pause]
    return (value.delay_ms if value.until is None else LONGEST_MS) + value.ttl_ms


def _step_ms(step: Step) -> int:
    if step.is_approval:  # an approval starts at once, is never lost, and is not retried
        return step.timeout_ms
    retries = step.retries
    longest_delay = round(retries.max_ms * (1 + retries.jitter))
    return (1 + retries.attempts + MAX_LOSSES) * (step.timeout_ms + _UNSEEN_MS) + retries.attempts * longest_delay
