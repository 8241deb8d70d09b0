"""`stepwell policy`: prints the IAM policy that commands need."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.ui.output import fail, print_json


def command(
    commands: Annotated[
        list[str] | None,
        typer.Argument(help="Commands: push, secrets, keys, functions; default: push.", show_default=False),
    ] = None,
    step_lambdas: Annotated[
        list[str] | None,
        typer.Option("--step-lambda", metavar="ARN", help="An existing Lambda that steps call by ARN. Repeatable."),
    ] = None,
    env: EnvOption = None,
) -> None:
    """Print the smallest IAM policy with which commands can use an environment in AWS. Attach it to the role or user
    that runs them. All other commands call the HTTP API with an API key, and need only ssm:GetParameter to find the
    address; every policy printed here includes it.

    Example: stepwell policy push --env production > push-policy.json
    """
    with aws():
        from stepwell.aws.deploy.push_policy import Environment, UnknownCommand, policy

        environment = Environment.of(resources_of(env), step_lambdas or ())
        try:
            document = policy(environment, commands or ("push",))
        except UnknownCommand as error:
            fail(str(error), 2)
    if not environment.boundary:
        fail("this environment has no permissions boundary for step roles; run `cdk deploy` again with this version")
    print_json(document)
