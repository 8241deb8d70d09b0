"""The rule and the secrets that `stepwell webhooks test --check` uses. Secrets come from environment variables."""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Any

from stepwell.cli.remote.client import DEFAULT_URL

if TYPE_CHECKING:
    from stepwell.api.webhooks.certificates import Certificates
    from stepwell.core.webhooks.webhooks import Rule


class ShellHooks:
    """Implements `api.webhooks.webhooks.Hooks`."""

    def __init__(self, rule: dict[str, Any]) -> None:
        self._rule = rule

    def rule(self, name: str) -> Rule | None:
        from stepwell.core.webhooks.webhooks import Rule

        return Rule.of(self._rule)

    def secret(self, name: str, *, again: bool = False) -> str | None:
        return os.environ.get(name)

    @property
    def public_url(self) -> str:
        return os.environ.get("STEPWELL_PUBLIC_URL") or os.environ.get("STEPWELL_URL", DEFAULT_URL)

    @cached_property
    def certificates(self) -> Certificates:
        from stepwell.api.webhooks.certificates import Certificates

        return Certificates()
