"""Pushes a project to the emulated account as `stepwell push` does, without progress display and without waiting."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from stepwell.aws.deploy.plan import MissingSecrets
from stepwell.aws.deploy.push import Push
from stepwell.aws.deploy.wanted import CannotPush, Wanted, wanted
from stepwell.aws.functions.event_types import TypeStore
from stepwell.aws.functions.webhooks import AwsWebhooks
from stepwell.aws.resources import Resources
from stepwell.core.routing.versions import Release
from stepwell.testing.account.emulator import Emulator
from stepwell.testing.platform import Refused
from stepwell.testing.projects import Project


class Pushed(NamedTuple):
    """`live`: the live versions by function. `is_partly_old`: whether one of them existed before the push."""

    live: dict[str, int]
    is_partly_old: bool


def push_project(
    resources: Resources,
    emulator: Emulator,
    project: Project,
    release: Release,
    prepare: Callable[[Sequence[Wanted]], None],
) -> Pushed:
    """Pushes all functions, types and webhooks of a project. `prepare` creates what they need. Raises Refused."""
    try:
        items = wanted(project.functions, resources)
    except CannotPush as wrong:
        raise Refused(400, [{"pointer": "", "message": str(problem)} for problem in wrong.problems]) from None
    prepare(items)
    push = Push(
        resources,
        emulator.deployer,
        _NoProgress(),
        sleep=lambda seconds: None,  # `cache_s` is 0 in tests, so there is no cache to wait for
        now=lambda: emulator.now,
        message=release.message,
        release=release,
    )
    for new in project.types:
        TypeStore(resources).register_type(new)
    for webhook in project.webhooks:
        AwsWebhooks(resources).put_webhook(webhook.rule)
    try:
        found, actions = push.plan(items)
    except MissingSecrets as wrong:
        raise Refused(400, [{"pointer": "", "message": str(wrong)}]) from None
    registered = push.apply(items, found, actions)
    live = {function_id: version.plan.version for function_id, version in found.live.items()}
    live |= {item.function_id: item.version for item in registered}
    return Pushed(live, not all(item.is_new for item in registered))


class _NoProgress:
    """Ignores the progress of a push."""

    def begin(self, action: Any) -> None: ...

    def sent(self, action: Any, size: int, total: int) -> None: ...

    def log(self, action: Any, line: str) -> None: ...

    def end(self, action: Any) -> None: ...
