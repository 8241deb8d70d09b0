"""A policy with the permissions that `stepwell push` needs, and a role with that policy for CI.

PushRole(self, "Deploy", env="prod", github="acme/shop", branch="main")

Constructs have more than seven parameters here, since CDK's users pass options as keywords.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from aws_cdk import Aws, Fn, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from stepwell.aws.deploy.push_policy import Environment, policy
from stepwell.aws.resources import Resources

GITHUB = "token.actions.githubusercontent.com"
_REPOSITORY = r"[A-Za-z0-9_.-]+/[A-Za-z0-9_.-]+"
_NAME = r"[A-Za-z0-9_./ -]+"


class BadTrust(ValueError):
    """A role's trust is missing or would be too wide. The message names the arguments to pass."""


def push_parameter(env: str) -> str:
    """The name of the SSM parameter with the values of an environment that a push policy needs."""
    return f"/stepwell/{env}/push"


def push_places(resources: Resources) -> list[str]:
    """The values in that parameter: table, bucket, boundary, the layers, repository and execution role."""
    layers = [Fn.select(6, Fn.split(":", arn)) for _, arn in sorted(resources.layers.items())]
    repository = Fn.select(1, Fn.split("/", resources.repository)) if resources.repository else ""
    return [resources.table, resources.bucket, resources.role_boundary, *layers, repository, resources.execution_role]


class PushPolicy(iam.ManagedPolicy):
    """A policy with the permissions that `commands` need, as `stepwell policy` prints it.

    The environment must be deployed already. `containers`: whether it runs container steps. `kms_key`: the ARN of the
    environment's KMS key. `step_lambdas`: ARNs of Lambdas that steps name in `runtime.arn`. `vpc`: whether the
    environment has subnets for Lambda steps. Raises UnknownCommand.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        env: str,
        commands: Sequence[str] = ("push",),
        containers: bool = False,
        kms_key: str = "",
        step_lambdas: Sequence[str] = (),
        vpc: bool = False,
        **options: Any,
    ) -> None:
        found = Fn.split(",", ssm.StringParameter.value_for_string_parameter(scope, push_parameter(env)))
        table, bucket, boundary, arm64, x86_64, repository, execution_role = (Fn.select(i, found) for i in range(7))
        environment = Environment(
            env=env,
            partition=Aws.PARTITION,
            region=Stack.of(scope).region,
            account=Stack.of(scope).account,
            table=table,
            bucket=bucket,
            boundary=boundary,
            layers=(arm64, x86_64),
            repository=repository if containers else "",
            execution_role=execution_role if containers else "",
            kms_key=kms_key,
            step_lambdas=tuple(step_lambdas),
            vpc=vpc,
        )
        document = iam.PolicyDocument.from_json(policy(environment, commands))
        super().__init__(scope, id, document=document, **options)


class PushRole(iam.Role):
    """A role with a `PushPolicy`, assumed by `assumed_by` or by GitHub Actions. `options`: those of `PushPolicy`.

    `github`: a repository as owner/name. The repository's workflows may assume the role on `branch`, or in the GitHub
    environment `environment`. The account must have GitHub's identity provider; docs/guides/deploy-from-ci.md
    creates it. Raises BadTrust, UnknownCommand.
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        env: str,
        assumed_by: iam.IPrincipal | None = None,
        github: str = "",
        branch: str = "",
        environment: str = "",
        role_name: str | None = None,
        **options: Any,
    ) -> None:
        if (assumed_by is None) == (not github):
            raise BadTrust("name who may assume the role: pass either github='owner/repository' or assumed_by")
        principal = assumed_by or _github(scope, github, branch, environment)
        super().__init__(scope, id, assumed_by=principal, role_name=role_name, description=f"Pushes to Stepwell {env}")
        self.policy = PushPolicy(self, "Policy", env=env, **options)
        self.add_managed_policy(self.policy)


def _github(scope: Construct, repository: str, branch: str, environment: str) -> iam.IPrincipal:
    """The principal of workflows of one repository, on one branch or in one environment. GitHub's claim `sub` contains
    both:

    https://docs.github.com/actions/security-for-github-actions/security-hardening-your-deployments/about-security-hardening-with-openid-connect
    """
    if not re.fullmatch(_REPOSITORY, repository):
        raise BadTrust(f"github: {repository!r} is not a repository; write it as owner/name, without wildcards")
    if bool(branch) == bool(environment):
        raise BadTrust("name the branch or the GitHub environment that may push: branch='main' or environment='prod'")
    if not re.fullmatch(_NAME, branch or environment):
        raise BadTrust(f"{branch or environment!r}: name one branch or environment, without wildcards")
    subject = f"ref:refs/heads/{branch}" if branch else f"environment:{environment}"
    provider = f"arn:{Aws.PARTITION}:iam::{Stack.of(scope).account}:oidc-provider/{GITHUB}"
    claims = {f"{GITHUB}:aud": "sts.amazonaws.com", f"{GITHUB}:sub": f"repo:{repository}:{subject}"}
    return iam.WebIdentityPrincipal(provider, {"StringEquals": claims})
