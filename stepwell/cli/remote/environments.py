"""Environments in AWS, as the commands see them: `--env NAME` or STEPWELL_ENV.

One rule: what goes wrong on the way to AWS is told as what to do about it. boto3 is loaded only by who needs it.
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
    """`stepwell runs --env prod show ID` is `stepwell runs show ID --env prod`."""
    if value:
        context.meta[_META] = value
    return context.meta.get(_META) or os.environ.get("STEPWELL_ENV") or None


EnvOption = Annotated[
    str | None,
    typer.Option("--env", callback=_remember, metavar="NAME", help="The environment in AWS; else STEPWELL_ENV"),
]


def needed(env: str | None) -> str:
    """Ends the command if no environment is named."""
    from stepwell.aws.naming import BadName, environment

    if env is None:
        fail("name the environment: --env NAME, or set STEPWELL_ENV", 2)
    try:
        return environment(env)
    except BadName as error:
        fail(str(error), 2)


def resources_of(env: str | None) -> Resources:
    """What the environment consists of. Use it inside of `aws()`."""
    from stepwell.aws.resources import Resources

    return Resources.of_environment(needed(env))


def api_url(env: str) -> str:
    """Where the environment's HTTP API is."""
    with aws():
        url = resources_of(env).api_url
    return url or fail(f"the environment {env} has no HTTP API; run `cdk deploy` again")


@contextmanager
def aws() -> Iterator[None]:
    """What AWS answers, in words; ends the command."""
    try:
        from botocore import exceptions as refused
    except ImportError:
        fail("environments in AWS need boto3; pip install 'stepwell[aws]'")
    from stepwell.aws.resources import NoEnvironment

    if region := os.environ.get("AWS_REGION"):  # as for the AWS command line; boto3 knows but the other name
        os.environ["AWS_DEFAULT_REGION"] = region
    try:
        yield
    except NoEnvironment as error:
        fail(str(error))
    except (refused.NoCredentialsError, refused.PartialCredentialsError, refused.CredentialRetrievalError):
        fail("there are no AWS credentials; run `aws configure sso`, or set AWS_PROFILE")
    except (refused.TokenRetrievalError, refused.SSOError):
        fail("the AWS session has ended; run `aws sso login`")
    except (refused.ProfileNotFound, refused.ConfigParseError) as error:
        fail(f"{error}; correct AWS_PROFILE")
    except (refused.NoRegionError, refused.InvalidRegionError):
        fail("which AWS region? set AWS_REGION")
    except refused.ClientError as error:
        fail(_in_words(error.response["Error"], error.operation_name))
    except refused.WaiterError as error:
        fail(f"{error}; push again to go on")
    except refused.BotoCoreError as error:
        fail(f"AWS cannot be reached: {error}")


_EXPIRED = frozenset({"ExpiredToken", "ExpiredTokenException", "RequestExpired"})
_UNKNOWN = frozenset({"InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "AuthFailure"})
_DENIED = frozenset({"AccessDenied", "AccessDeniedException", "UnauthorizedOperation", "403"})
_THROTTLED = frozenset({"Throttling", "ThrottlingException", "TooManyRequestsException", "RequestLimitExceeded"})


def _in_words(problem: dict[str, Any], operation: str) -> str:
    code, message = problem.get("Code", ""), problem.get("Message", "")
    if code in _EXPIRED:
        return "the AWS credentials have expired; get new ones, as with `aws sso login`"
    if code in _UNKNOWN:
        return "AWS does not know these credentials; look at AWS_PROFILE, or at AWS_ACCESS_KEY_ID"
    if code in _DENIED:
        named = re.search(r"perform: (\S+?)(?: on resource: (\S+))?(?:\s|$)", message)
        permission = named[1] if named else operation
        where = f" on {named[2]}" if named and named[2] else ""
        return f"AWS denies {permission}{where}; ask for that permission. It says: {message}"
    if code in _THROTTLED:
        return f"AWS takes no more requests now ({operation}); try again in a minute"
    return f"{operation}: {message or code}"
