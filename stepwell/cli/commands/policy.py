"""`stepwell policy`: what somebody needs to be allowed in AWS."""

from __future__ import annotations

from typing import Annotated

import typer

from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.ui.output import fail, print_json


def command(
    commands: Annotated[
        list[str] | None,
        typer.Argument(help="What will be run: push, secrets, keys, functions; default: push.", show_default=False),
    ] = None,
    step_lambdas: Annotated[
        list[str] | None,
        typer.Option("--step-lambda", metavar="ARN", help="A Lambda of yours that steps name by its ARN."),
    ] = None,
    env: EnvOption = None,
) -> None:
    """Print the IAM policy that somebody needs to run commands on an environment in AWS, and no more: attach it to the
    role or user that runs them. Commands that are not listed use the HTTP API, with an API key; to find it, they need
    ssm:GetParameter, which every policy here has.

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
        fail("this environment has no boundary for the roles of steps; run `cdk deploy` again with this version")
    print_json(document)
