"""The account that checks use: the environment, the HTTP API, and the commands that a user runs.

A check registers what it creates with `cleanup`, which undoes it when the check ends, also after a failure.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import boto3
import httpx
import yaml

from rehearsal.real.checks import Failed
from stepwell.aws.resources import Resources

ROOT = Path(__file__).parent.parent.parent
FUNCTIONS = Path(__file__).parent / "functions"
Json = dict[str, Any]
T = TypeVar("T")


class Account:
    """The environment `env` of the account and region that boto3 finds.

    `options`: values of `--with name=value` on the command line, such as `nat=true`.
    `emulator_url`: the URL of the emulator, in the rehearsal; empty for a real account.
    """

    def __init__(self, env: str, options: dict[str, str] | None = None, emulator_url: str = "") -> None:
        self.env, self.options, self.emulator_url = env, options or {}, emulator_url
        self.resources = Resources.of_environment(env)
        self.stack = f"Stepwell-{env}"
        self.cleanup = ExitStack()
        self._clients: dict[str, Any] = {}
        self._pushed: list[str] = []

    def client(self, service: str) -> Any:
        """The boto3 client of a service, in the environment's region."""
        if service not in self._clients:
            self._clients[service] = boto3.client(service, region_name=self.resources.region)
        return self._clients[service]

    @cached_property
    def stack_resources(self) -> list[Json]:
        """The stack's resources in CloudFormation: LogicalResourceId, PhysicalResourceId, ResourceType."""
        pages = self.client("cloudformation").get_paginator("list_stack_resources").paginate(StackName=self.stack)
        return [found for page in pages for found in page["StackResourceSummaries"]]

    def made(self, resource_type: str, part: str = "") -> list[str]:
        """Physical ids of the stack's resources of a type (`AWS::SQS::Queue`) whose logical id contains `part`."""
        return [
            found["PhysicalResourceId"]
            for found in self.stack_resources
            if found["ResourceType"] == resource_type and part in found["LogicalResourceId"]
        ]

    def engine_lambda(self, name: str) -> str:
        """The function name of one of the engine's Lambdas, such as `route`. Raises Failed."""
        found = self.made("AWS::Lambda::Function", f"Functions{name}Function")
        if len(found) != 1:
            raise Failed(f"the stack {self.stack} has {len(found)} Lambdas {name}; deploy it again")
        return found[0]

    # --- the API and the commands ----------------------------------------------------------------------------------

    @cached_property
    def api(self) -> Api:
        """The environment's HTTP API, with a manage key that is revoked at the end."""
        made = json.loads(self.stepwell("keys", "create", "--scope", "manage", "--name", "checks", "--json"))
        return Api(self.resources.api_url, made["key"], self.emulator_url)

    def close(self) -> None:
        """Retires the functions that were pushed, and revokes the key of `api`."""
        if self._pushed:
            self.stepwell("functions", "retire", *self._pushed)
        if "api" in self.__dict__:
            for key in json.loads(self.stepwell("keys", "list", "--json")):
                if key["name"] == "checks" and not key["revoked_at"]:
                    self.stepwell("keys", "revoke", key["id"], "--json")

    def stepwell(self, *words: str) -> str:
        """The standard output of a `stepwell` command for this environment. Raises Failed."""
        return self.command([sys.executable, "-m", "stepwell", *words, "--env", self.env])

    def command(self, words: list[str]) -> str:
        done = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=False)
        if done.returncode:
            raise Failed(f"`{' '.join(words)}` failed: {(done.stderr or done.stdout).strip()[-2000:]}")
        return done.stdout

    def push(self, folder: Path) -> list[str]:
        """Pushes the functions of a folder and returns their ids. They are retired when the check ends."""
        ids = [yaml.safe_load(file.read_text())["id"] for file in sorted(folder.glob("**/stepwell.*"))]
        self.cleanup.callback(self.stepwell, "functions", "retire", *ids)
        self.stepwell("push", str(folder))
        return ids

    def use_functions(self) -> None:
        """Pushes the functions in `functions/`, once. They are retired after the last check."""
        if self._pushed:
            return
        with TemporaryDirectory() as folder:
            shutil.copytree(FUNCTIONS, folder, dirs_exist_ok=True)
            architecture = self.options.get("architecture")
            if architecture:
                file = Path(folder) / "three" / "stepwell.yaml"
                definition = yaml.safe_load(file.read_text())
                definition["steps"]["count"]["runtime"] = {"type": "lambda", "architecture": architecture}
                file.write_text(yaml.safe_dump(definition))
            self.stepwell("push", folder)
        self._pushed = [yaml.safe_load(file.read_text())["id"] for file in sorted(FUNCTIONS.glob("*/stepwell.yaml"))]

    # --- waiting ---------------------------------------------------------------------------------------------------

    def until(self, what: str, look: Callable[[], T | None], within_s: float = 60, every_s: float = 1) -> T:
        """Calls `look` until the result is true, and returns it. Raises Failed if that takes too long."""
        deadline = time.monotonic() + within_s
        while not (result := look()):
            if time.monotonic() > deadline:
                raise Failed(f"not within {within_s:.0f} s: {what}")
            time.sleep(every_s)
        return result


class Api:
    """A client for the HTTP API."""

    def __init__(self, url: str, key: str, emulator_url: str = "") -> None:
        headers = {"authorization": f"Bearer {key}"}
        if emulator_url:  # the emulator selects the API by the Host header
            port = httpx.URL(emulator_url).port
            headers["host"] = f"{httpx.URL(url).host.split('.')[0]}.execute-api.localhost:{port}"
        self.http = httpx.Client(base_url=emulator_url or url, headers=headers, timeout=40)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        """The JSON of a successful response. Raises Failed for any other."""
        response = self.http.request(method, path, json=body)
        if not response.is_success:
            raise Failed(f"{method} {path} answers {response.status_code}: {response.text[:500]}")
        return response.json()

    def send(self, *events: Json) -> list[str]:
        """Sends events and returns their ids."""
        ids: list[str] = self.call("POST", "/e", list(events))["ids"]
        return ids

    def runs_of(self, event_id: str) -> list[Json]:
        """The runs that an event has started. Empty also if the event is not routed yet."""
        response = self.http.get(f"/v1/events/{event_id}/runs")
        if response.status_code == 404:
            return []
        if not response.is_success:
            raise Failed(f"GET /v1/events/{event_id}/runs answers {response.status_code}: {response.text[:500]}")
        runs: list[Json] = response.json()["data"]
        return runs
