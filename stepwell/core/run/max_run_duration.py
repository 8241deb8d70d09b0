"""How long a run may take: what it may come to need must be kept so long.

One rule: never too short, but for a `retry_after`, which a step may say to be anything; most runs end long before.
"""

from __future__ import annotations

from stepwell.core.plan import TRIGGER, Plan, Step
from stepwell.core.run.attempt_result import MAX_LOSSES

_UNSEEN_MS = 7 * 3_600_000  # how long an attempt may wait to begin, and a lost one may stay unnoticed


def longest_run_ms(plan: Plan) -> int:
    """The longest time from a run's start to its end: on the slowest path every step uses up all its attempts, and
    every pause its delay and its ttl."""
    ends = {TRIGGER: 0}
    for i in sorted(range(len(plan.steps)), key=lambda i: len(plan.steps[i].ancestors)):  # parents come first
        edges = [plan.edges[e] for e in plan.steps[i].edges]
        start = max((ends[edge.parent] + _pause_ms(plan, edge.pause) for edge in edges), default=0)
        ends[i] = start + _step_ms(plan.steps[i])
    return max(ends.values())


def _pause_ms(plan: Plan, pause: int | None) -> int:
    return 0 if pause is None else plan.pauses[pause].delay_ms + plan.pauses[pause].ttl_ms


def _step_ms(step: Step) -> int:
    if step.is_approval:  # it begins at once, is never lost, and nothing is tried again
        return step.timeout_ms
    retries = step.retries
    longest_delay = round(retries.max_ms * (1 + retries.jitter))
    return (1 + retries.attempts + MAX_LOSSES) * (step.timeout_ms + _UNSEEN_MS) + retries.attempts * longest_delay
