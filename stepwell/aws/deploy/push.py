"""`stepwell push`: makes functions live in an environment.

A version goes live last, after everything that it runs on exists. So an interrupted push leaves no version half live,
and the next push completes the rest.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from botocore.exceptions import ClientError

from stepwell.aws.deploy.account import Account
from stepwell.aws.deploy.actions import (
    Action,
    Adopt,
    PutLambda,
    PutLogGroup,
    PutParameter,
    PutRole,
    PutTask,
    Register,
    Upload,
)
from stepwell.aws.deploy.modules import write_package
from stepwell.aws.deploy.packaging import StepLambda
from stepwell.aws.deploy.plan import Found, plan, role_arn
from stepwell.aws.deploy.roles import put_role, read_role
from stepwell.aws.deploy.step_lambdas import Changer, configuration, read_lambda
from stepwell.aws.deploy.tasks import make_task
from stepwell.aws.deploy.values import describe_parameters, put_parameter, read_parameters, values_hash
from stepwell.aws.deploy.wanted import Wanted, known_tasks, targets
from stepwell.aws.functions.registry import Registry
from stepwell.aws.functions.releases import AT_ONCE, Registered, Releases, awaits
from stepwell.aws.functions.versions import NewVersion, Target, Version
from stepwell.aws.naming import ENV_TAG, log_group, role_name, secret_parameter, task_log_group
from stepwell.aws.resources import Resources
from stepwell.core.routing.versions import Release

T = TypeVar("T")
_PARALLEL = 8
_STAGES: tuple[tuple[type[Action], ...], ...] = (
    (PutParameter, PutRole, PutLogGroup, Upload),
    (PutLambda, Adopt, PutTask),
)


class Watcher(Protocol):
    """Receives the progress of a push. Called from several threads."""

    def begin(self, action: Action) -> None: ...

    def sent(self, action: Action, size: int, total: int) -> None: ...

    def log(self, action: Action, line: str) -> None: ...

    def end(self, action: Action) -> None: ...


class NoLambda(Exception):
    """A step names a Lambda that does not exist. The message names it."""


@dataclass(frozen=True, slots=True)
class Pushed:
    actions: Sequence[Action]
    registered: Sequence[Registered]  # versions that this push made live
    notes: Sequence[str]  # things that the user must do by hand


@dataclass(slots=True)
class Push:
    resources: Resources
    account: Account
    watcher: Watcher
    message: str = ""
    release: Release = AT_ONCE
    sleep: Callable[[float], None] = time.sleep
    now: Callable[[], int] = lambda: time.time_ns() // 1_000_000
    _pool: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(_PARALLEL), init=False)

    def plan(self, functions: Sequence[Wanted]) -> tuple[Found, list[Action]]:
        """The state of the account, and the actions of a push. Changes nothing. Raises NoLambda, ClientError."""
        found = self._read(functions)
        return found, plan(functions, found, self.resources)

    def apply(self, functions: Sequence[Wanted], found: Found, actions: Sequence[Action]) -> list[Registered]:
        """Carries out the actions. Completed actions stay if one fails; the next push does the rest."""
        made: dict[str, Target] = {}
        roles = {function.id: role_arn(function, found, self.resources) for function in functions}
        for kinds in _STAGES:
            self._all(lambda action: self._do(action, roles, made), [a for a in actions if isinstance(a, kinds)])
        return self._register(found, [action for action in actions if isinstance(action, Register)], made)

    # --- reading the account -----------------------------------------------------------------------------------------

    def _read(self, functions: Sequence[Wanted]) -> Found:
        env, account = self.resources.env, self.account
        lambdas = {step.name(env): step for function in functions for step in function.lambdas.values()}
        arns = {arn for function in functions for arn in function.arns.values()}
        dotenv = [name for function in functions for name in function.dotenv(env)]
        secrets = [secret_parameter(env, name) for function in functions for name in function.secrets]
        roles = [role_name(env, function.id) for function in functions if function.needs_role]
        prefixes = {log_group(name)[:-12] for name in lambdas} | {
            task_log_group(env, i.id) for i in functions if i.tasks
        }
        states = self._each(lambda name: read_lambda(account.lambda_, *_unqualified(name)), [*lambdas, *arns])
        for arn in sorted(arns - states.keys()):
            raise NoLambda(
                f"Lambda {arn} does not exist, or these credentials cannot read it; correct the step's `arn`"
            )
        keys = {lambdas[name].code_key for name in lambdas.keys() - states.keys()}
        groups = self._each(self._log_groups, prefixes)
        return Found(
            roles=self._each(lambda name: read_role(account.iam, name, self.resources), roles),
            parameters=read_parameters(account.ssm, dotenv) | describe_parameters(account.ssm, secrets),
            lambdas=states,
            log_groups={name: days for found in groups.values() for name, days in found.items()},
            code=frozenset(self._each(self._size, keys)),
            live=self._live({function.id for function in functions}),
        )

    def _live(self, ids: set[str]) -> dict[str, Version]:
        registry = Registry(self.resources)
        rows = [row for row in registry.functions() if row.id in ids and not row.pending]
        return {row.id: registry.version(row.id, row.live) for row in rows if row.live is not None}

    def _log_groups(self, prefix: str) -> dict[str, int]:
        pages = self.account.logs.get_paginator("describe_log_groups").paginate(logGroupNamePrefix=prefix)
        return {g["logGroupName"]: g.get("retentionInDays", 0) for page in pages for g in page["logGroups"]}

    def _size(self, key: str) -> int | None:
        try:
            found = self.account.s3.head_object(Bucket=self.resources.bucket, Key=key)
        except ClientError as error:
            if error.response["Error"]["Code"] in ("404", "NoSuchKey"):
                return None
            raise
        size: int = found["ContentLength"]
        return size

    # --- changing the account ----------------------------------------------------------------------------------------

    def _do(self, action: Action, roles: dict[str, str], made: dict[str, Target]) -> None:
        self.watcher.begin(action)
        match action:
            case PutParameter():
                put_parameter(self.account.ssm, self.resources, action.name, action.value)
            case PutRole():
                put_role(self.account.iam, self.resources, action.name, action.function_id, action.policy)
            case PutLogGroup():
                self._put_log_group(action.name)
            case Upload(step=StepLambda() as step):
                self._upload(action, step)
            case PutLambda(step=StepLambda() as step):
                self._put_lambda(action, step, roles[step.function_id])
            case Adopt():
                self._changer(action).invocation(*_unqualified(action.name), action.changes, is_new=False)
            case PutTask(task=task) if task is not None:
                made[task.name] = make_task(
                    task, self.account, self.resources, lambda line: self.watcher.log(action, line)
                )
        self.watcher.end(action)

    def _changer(self, action: Action) -> Changer:
        return Changer(self.account.lambda_, self.resources, self.sleep, lambda line: self.watcher.log(action, line))

    def _put_log_group(self, name: str) -> None:
        logs = self.account.logs
        key = {"kmsKeyId": self.resources.kms_key} if self.resources.kms_key else {}
        tags = {ENV_TAG: self.resources.env}
        try:
            logs.create_log_group(logGroupName=name, tags=tags, **key)
        except logs.exceptions.ResourceAlreadyExistsException:
            # Lambda creates the log group at the first invocation, without a retention.
            logs.tag_resource(resourceArn=log_group_arn(self.resources, name), tags=tags)
        logs.put_retention_policy(logGroupName=name, retentionInDays=self.resources.retention_days)

    def _upload(self, action: Action, step: StepLambda) -> None:
        with tempfile.TemporaryFile() as file:
            write_package(step, file)
            total = file.tell()
            file.seek(0)
            function = lambda size: self.watcher.sent(action, size, total)  # noqa: E731
            self.account.s3.upload_fileobj(file, self.resources.bucket, step.code_key, Callback=function)

    def _put_lambda(self, action: PutLambda, step: StepLambda, role: str) -> None:
        values = None
        if step.has_values:
            names = step.parameters(self.resources.env)
            values = values_hash(names, describe_parameters(self.account.ssm, names))
        self._changer(action).make(step, configuration(step, self.resources, role), values, action.changes)

    # --- going live --------------------------------------------------------------------------------------------------

    def _register(self, found: Found, actions: Sequence[Register], made: dict[str, Target]) -> list[Registered]:
        if not actions:
            return []
        releases, author = Releases(self.resources), self.account.author()
        new = [action.wanted for action in actions if action.wanted is not None]
        for wanted in new:
            releases.stage(wanted.definition)
        if any(
            awaits(wanted.plan) - awaits(live.plan if (live := found.live.get(wanted.id)) else None) for wanted in new
        ):
            self.sleep(self.resources.cache_s + 1)  # until every router has read the new wait paths
        registered = []
        for action, wanted in zip(actions, new, strict=True):
            self.watcher.begin(action)
            tasks = known_tasks(wanted, self.resources, found.live.get(wanted.id))
            tasks |= {step: made[task.name] for step, task in wanted.tasks.items() if task.name in made}
            executed_by = targets(wanted, self.resources, tasks)
            new_version = NewVersion(
                wanted.definition, executed_by, wanted.code, self.message, author, str(wanted.file)
            )
            registered.append(releases.register(new_version, self.now(), self.release))
            self.watcher.end(action)
        return registered

    # --- in parallel -------------------------------------------------------------------------------------------------

    def _each(self, read: Callable[[str], T | None], names: Iterable[str]) -> dict[str, T]:
        """The results of `read`, by name, without those that are None."""
        items = sorted(set(names))
        return {name: state for name, state in zip(items, self._all(read, items), strict=True) if state is not None}

    def _all(self, do: Callable[[Any], Any], things: Sequence[Any]) -> list[Any]:
        """The results of `do`, in order. All run even if one fails, so that less is left for the next push; then the
        first error is raised."""
        futures = [self._pool.submit(do, thing) for thing in things]
        errors = [error for future in futures if (error := future.exception()) is not None]
        if errors:
            raise errors[0]
        return [future.result() for future in futures]


def notes(functions: Iterable[Wanted], found: Found, resources: Resources, actions: Sequence[Action]) -> list[str]:
    """Notes on what people must do by hand: about roles with policies of their own, and, if there are actions, about
    Lambdas that steps name by ARN."""
    arns = {arn for function in functions for arn in function.arns.values()} if actions else set()
    items = [
        f"{name}: this role has other policies than Stepwell's, so a push does not set the boundary"
        f" {resources.step_boundary}, which allows only what Stepwell's steps need; set the boundary yourself, once the"
        " setting step_actions allows what those policies do"
        for name, role in sorted(found.roles.items())
        if role.has_other_policies and role.boundary != resources.role_boundary
    ]
    return items + [
        f"{arn}: its role {found.lambdas[arn].configuration['Role']} must be allowed sqs:SendMessage on"
        f" {resources.outcomes_queue_arn}; and the engine must be allowed lambda:InvokeFunction on it, which"
        " `cdk deploy` does with the ARN in the setting step_lambdas. Its result must be below 256 KiB: Lambda"
        " silently drops a result of about 1 MB, and then the step fails late, with `no_answer`"
        for arn in sorted(arns)
    ]


def _unqualified(arn: str) -> tuple[str, str | None]:
    """A Lambda's name, and the alias or version that its ARN names."""
    parts = arn.split(":")
    return (":".join(parts[:7]), parts[7]) if len(parts) == 8 else (arn, None)


def log_group_arn(resources: Resources, name: str) -> str:
    """The log group's ARN for tags: without `:*`, which means the streams."""
    _, partition, _, region, account, _ = resources.outcomes_queue_arn.split(":")
    return f"arn:{partition}:logs:{region}:{account}:log-group:{name}"
