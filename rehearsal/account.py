"""An emulated AWS account on this machine: starts and stops ministack, and lists the resources in it."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import boto3
import httpx

HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "rehearsal"
LOG = BUILD / "emulator.log"
REGION = "us-east-1"
_PYTHON = BUILD / "bin" / "python"
_WRONG = r' (ERROR|CRITICAL) |"level":"(ERROR|WARNING)"|^[\w.]*(Error|Exception|_Err): '


class Thing(NamedTuple):
    kind: str  # as `lambda.list_functions`
    name: str


_LISTS = (  # service, operation, the list in the response, the name in an item; None: the item is the name
    ("apigatewayv2", "get_apis", "Items", "Name"),
    ("cloudformation", "describe_stacks", "Stacks", "StackName"),
    ("cloudwatch", "describe_alarms", "MetricAlarms", "AlarmName"),
    ("cloudwatch", "list_dashboards", "DashboardEntries", "DashboardName"),
    ("dynamodb", "list_tables", "TableNames", None),
    ("events", "list_event_buses", "EventBuses", "Name"),
    ("events", "list_rules", "Rules", "Name"),
    ("iam", "list_roles", "Roles", "RoleName"),
    ("kinesis", "list_streams", "StreamNames", None),
    ("lambda", "list_event_source_mappings", "EventSourceMappings", "UUID"),
    ("lambda", "list_functions", "Functions", "FunctionName"),
    ("lambda", "list_layers", "Layers", "LayerName"),
    ("logs", "describe_log_groups", "logGroups", "logGroupName"),
    ("s3", "list_buckets", "Buckets", "Name"),
    ("sns", "list_topics", "Topics", "TopicArn"),
    ("sqs", "list_queues", "QueueUrls", None),
    ("ssm", "describe_parameters", "Parameters", "Name"),
)


def things() -> set[Thing]:
    """The resources in the account, of all kinds that an environment consists of."""
    found = set()
    for service, operation, path, name in _LISTS:
        for item in _list(boto3.client(service), operation, path):
            found.add(Thing(f"{service}.{operation}", item if name is None else item[name]))
    return found


def _list(client: Any, operation: str, path: str) -> list[Any]:
    if client.can_paginate(operation):
        return [item for page in client.get_paginator(operation).paginate() for item in page.get(path, [])]
    items: list[Any] = getattr(client, operation)()[path]
    return items


# --- the emulator ----------------------------------------------------------------------------------------------------


@contextmanager
def account() -> Iterator[str]:
    """Runs the emulator and yields the URL. It serves as AWS account for this process and the commands it starts."""
    _install()
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    url = f"http://localhost:{port}"
    _forget_real_accounts()
    with tempfile.TemporaryDirectory() as scratch, LOG.open("wb") as log:
        variables = {
            "AUTH": "true",  # IAM is enforced
            "BIND_HOST": "127.0.0.1",
            "GATEWAY_PORT": str(port),
            "LAMBDA_EXECUTOR": "local",
            "PERSIST_STATE": "0",
            "TMPDIR": scratch,  # it stores the code of every Lambda instance there
        }
        process = subprocess.Popen(
            [_PYTHON, HERE / "emulator.py"], env={**os.environ, **variables}, stdout=log, stderr=log
        )
        os.environ |= {
            "AWS_ENDPOINT_URL": url,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_REGION": REGION,
            "AWS_DEFAULT_REGION": REGION,
        }
        try:
            _wait_for(url, process)
            yield url
        except (Exception, SystemExit):
            print(_end_of_log(), file=sys.stderr, flush=True)
            raise
        finally:
            _end(process)


def refusals() -> list[str]:
    """The log lines of Lambdas about denied requests."""
    return [line for line in LOG.read_text(errors="replace").splitlines() if "is not authorized to perform" in line]


def python_version() -> str:
    """The Python version of the Lambdas, which run with ministack's own Python."""
    found = subprocess.check_output([_PYTHON, "-c", "import sys; print('%d.%d' % sys.version_info[:2])"], text=True)
    return found.strip()


def _forget_real_accounts() -> None:
    """Removes the user's AWS credentials and profiles from the environment, so that no real account is reachable."""
    for name in [name for name in os.environ if name.startswith("AWS_") and name != "AWS_CA_BUNDLE"]:
        del os.environ[name]
    os.environ |= {"AWS_CONFIG_FILE": os.devnull, "AWS_SHARED_CREDENTIALS_FILE": os.devnull}


def _install() -> None:
    """Creates the emulator's virtual environment, or creates it again if the requirements have changed."""
    wanted, installed = HERE / "requirements.txt", BUILD / "requirements.txt"
    if not installed.exists() or installed.read_bytes() != wanted.read_bytes():
        venv.create(BUILD, with_pip=True, clear=True, symlinks=True)
        subprocess.run([_PYTHON, "-m", "pip", "install", "--quiet", "--requirement", wanted], check=True)
        shutil.copy(wanted, installed)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            httpx.get(url, timeout=2)
            return
        except httpx.TransportError:
            if time.monotonic() > deadline or process.poll() is not None:
                sys.exit("ministack does not start")
            time.sleep(0.2)


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()


def _end_of_log() -> str:
    """The last errors and the last lines of the log, which includes the logs of the Lambdas."""
    lines = [line for line in LOG.read_text(errors="replace").splitlines() if '{"_aws":' not in line]
    wrong = [line for line in lines if re.search(_WRONG, line)]
    return "\n".join(
        [
            f"--- errors in {LOG}",
            *(line[:3000].replace("\\n", "\n") for line in wrong[-8:]),
            "--- the last lines",
            *(line[:300] for line in lines[-25:]),
            "---",
        ]
    )
