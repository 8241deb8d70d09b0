"""Makes jobs for the runners from claimed attempts: the step's code, input and environment variables."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stepwell.local.runners.job import CannotRun, Job
from stepwell.local.store.store import LocalStore
from stepwell.platform import Attempt


class Jobs:
    """Makes jobs. `secret` returns the value of a secret by name; None if it is not set."""

    def __init__(self, store: LocalStore, code: Path, secret: Callable[[str], str | None]) -> None:
        self._store, self._code, self._secret = store, code, secret
        self._folders: dict[str, Path] = {}  # by hash; making a Path is slow

    def make(self, attempt: Attempt) -> Job:
        """The job of an attempt. Raises CannotRun if a secret is not set."""
        record, functions = attempt.record, self._store.functions
        plan, step = record.plan, record.plan.steps[attempt.step]
        env = {**functions.dotenv(plan.function_id, step.id)}
        if step.env:
            env.update(step.env)
        for name in step.secrets:
            value = self._secret(name)
            if value is None:
                raise CannotRun(f"the secret {name} is not set; set {name} in the server's environment")
            env[name] = value
        code_hash = functions.code(plan.function_id, plan.version).get(step.id)
        return Job(
            run_id=record.run.id,
            function_id=plan.function_id,
            version=plan.version,
            step=step,
            attempt=attempt.attempt,
            input=attempt.input,
            code=self._folder(code_hash) if code_hash else None,
            code_hash=code_hash,
            env=env,
            index=attempt.step,
        )

    def _folder(self, code_hash: str) -> Path:
        folder = self._folders.get(code_hash)
        if folder is None:
            folder = self._folders[code_hash] = self._code / code_hash
        return folder
