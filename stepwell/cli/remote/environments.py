"""Environments in AWS, named by `--env NAME` or STEPWELL_ENV.

Errors of AWS are printed together with what to do about them. boto3 is imported only by commands that need it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from stepwell.cli.ui.output import fail

if TYPE_CHECKING:
    from stepwell.aws.resources import Resources

_META = "stepwell.env"


def _remember(context: typer.Context, value: str | None) -> str | None:
    """The option's value, else the one given before the subcommand, else STEPWELL_ENV.

    So `stepwell runs --env prod show ID` equals `stepwell runs show ID --env prod`.
    """
    if value:
        context.meta[_META] = value
    return context.meta.get(_META) or os.environ.get("STEPWELL_ENV") or None


EnvOption = Annotated[
    str | None,
    typer.Option("--env", callback=_remember, metavar="NAME", help="The environment in AWS; default: STEPWELL_ENV."),
]


def required_env(env: str | None) -> str:
    """The environment's name. Ends the command if it is missing or invalid."""
    from stepwell.aws.naming import BadName, environment

    if env is None:
        fail("no environment is given; pass --env NAME, or set STEPWELL_ENV", 2)
    try:
        return environment(env)
    except BadName as error:
        fail(str(error), 2)


def resources_of(env: str | None) -> Resources:
    """The resources of an environment: table, queues and so on. Call it within `aws()`."""
    from stepwell.aws.resources import Resources

    return Resources.of_environment(required_env(env))


def api_url(env: str) -> str:
    """The address of the environment's HTTP API. Ends the command if it has none."""
    with aws():
        url = resources_of(env).api_url
    return url or fail(f"the environment {env} has no HTTP API; run `cdk deploy` again")


@contextmanager
def aws() -> Iterator[None]:
    """Ends the command with a plain message if a call to AWS within this context fails."""
    try:
        from botocore import exceptions as errors
    except ImportError:
        fail("commands for AWS need boto3; run: pip install 'stepwell[aws]'")
    from stepwell.aws.resources import NoEnvironment

    if region := os.environ.get("AWS_REGION"):  # as in the AWS command line; boto3 reads only AWS_DEFAULT_REGION
        os.environ["AWS_DEFAULT_REGION"] = region
    try:
        yield
    except NoEnvironment as error:
        fail(str(error))
    except (errors.NoCredentialsError, errors.PartialCredentialsError, errors.CredentialRetrievalError):
        fail("there are no AWS credentials; run `aws configure sso`, or set AWS_PROFILE")
    except (errors.TokenRetrievalError, errors.SSOError):
        fail("the AWS session has ended; run `aws sso login`")
    except (errors.ProfileNotFound, errors.ConfigParseError) as error:
        fail(f"{error}; correct AWS_PROFILE")
    except (errors.NoRegionError, errors.InvalidRegionError):
        fail("the AWS region is missing or invalid; set AWS_REGION")
    except errors.ClientError as error:
        fail(_message_of(error.response["Error"], error.operation_name))
    except errors.WaiterError as error:
        fail(f"{error}; push again to continue")
    except errors.BotoCoreError as error:
        fail(f"AWS cannot be reached: {error}")


_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN = frozenset({"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "AuthFailure"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})
_THROTTLED = frozenset({"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"})


def _message_of(problem: dict[str, Any], operation: str) -> str:
    """A message for the user: what AWS refused, and what to do."""
    code, message = problem.get("Code", ""), problem.get("Message", "")
    if code in _EXPIRED:
        return "the AWS credentials have expired; get new ones, for example with `aws sso login`"
    if code in _UNKNOWN:
        return "AWS rejects these credentials; check AWS_PROFILE or AWS_ACCESS_KEY_ID"
    if code in _DENIED:
        named = re.search(r"perform: (\S+?)(?: on resource: (\S+))?(?:\s|$)", message)
        permission = named[1] if named else operation
        where = f" on {named[2]}" if named and named[2] else ""
        return f"AWS denies {permission}{where}; ask for that permission. The answer of AWS: {message}"
    if code in _THROTTLED:
        return f"AWS throttles {operation}; try again in a minute"
    return f"{operation}: {message or code}"
