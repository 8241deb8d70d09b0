"""The actions of a push, as values. Each action creates or changes one thing in the account."""

from __future__ import annotations

from dataclasses import dataclass, field

from stepwell.aws.deploy.packaging import StepLambda
from stepwell.aws.deploy.step_lambdas import Json
from stepwell.aws.deploy.step_policy import Policy
from stepwell.aws.deploy.tasks import StepTask
from stepwell.aws.deploy.wanted import Wanted


@dataclass(frozen=True, slots=True)
class Action:
    verb: str
    kind: str
    name: str
    detail: str = ""

    def as_json(self) -> Json:
        fields = {"action": self.verb, "kind": self.kind, "name": self.name}
        return {**fields, "detail": self.detail} if self.detail else fields


@dataclass(frozen=True, slots=True)
class PutParameter(Action):
    value: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class PutRole(Action):
    function_id: str = ""
    policy: Policy = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PutLogGroup(Action): ...


@dataclass(frozen=True, slots=True)
class Upload(Action):
    step: StepLambda | None = None


@dataclass(frozen=True, slots=True)
class PutLambda(Action):
    step: StepLambda | None = None
    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adopt(Action):
    """Makes a Lambda that a step names by ARN send its results to Stepwell."""

    changes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PutTask(Action):
    task: StepTask | None = None


@dataclass(frozen=True, slots=True)
class Register(Action):
    wanted: Wanted | None = None


def new_or_changed(exists: bool) -> str:
    return "update" if exists else "create"
