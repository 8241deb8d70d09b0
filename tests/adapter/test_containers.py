"""The adapter as a container's entrypoint: it fetches the input, stores the report, and can be stopped by ECS."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.adapter.lambda_service import PATIENCE_S, Handler, Server
from tests.adapter.ssm import is_signed

SIGNED = "?X-Amz-Signature=abc"


class Storage:
    """A fake of S3, with objects by path, and of ECS's endpoint for credentials."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self.put = threading.Event()
        self.region = "eu-central-1"
        storage = self

        class Requests(Handler):
            def do_GET(self) -> None:  # noqa: N802
                if self.path == "/credentials":
                    assert self.headers["Authorization"] == "ecs token"
                    fields = {"AccessKeyId": "AKIDEXAMPLE", "SecretAccessKey": "secret", "Token": "session"}
                    return self.answer(200, json.dumps(fields).encode())
                if self._is_refused(b""):
                    return None
                content = storage.objects.get(self.path)
                return self.answer(404) if content is None else self.answer(200, content)

            def do_PUT(self) -> None:  # noqa: N802
                body = self.body()
                if not self._is_refused(body):
                    storage.objects[self.path] = body
                    self.answer(200)
                    storage.put.set()

            def _is_refused(self, body: bytes) -> bool:
                refusal = storage.refusals.pop(0) if storage.refusals else None
                if refusal is None and not self.path.endswith(SIGNED):
                    if not is_signed(self, body, "s3", storage.region):
                        refusal = (403, {"X-Amz-Bucket-Region": storage.region})
                if refusal is not None:
                    self.answer(refusal[0], headers=refusal[1])
                return refusal is not None

        self.server = Server(Requests)


class Container:
    def __init__(self, binary: Path, folder: Path, storage: Storage) -> None:
        self.binary, self.folder, self.storage = binary, folder, storage
        self.addresses = (f"{storage.server.url}/in{SIGNED}", f"{storage.server.url}/out{SIGNED}")
        self.paths = (f"/in{SIGNED}", f"/out{SIGNED}")
        self.processes: list[subprocess.Popen[bytes]] = []

    def use_s3(self) -> None:
        self.addresses = ("s3://bucket/run/a b.json", "s3://bucket/run/a b.out.json")
        self.paths = ("/bucket/run/a%20b.json", "/bucket/run/a%20b.out.json")

    def start(self, script: str, content: bytes | None = b"{}", **env: str) -> subprocess.Popen[bytes]:
        if content is not None:
            self.storage.objects[self.paths[0]] = content
        variables = {
            "PATH": os.environ["PATH"],
            "TMPDIR": str(self.folder),
            "AWS_REGION": "eu-central-1",
            "AWS_CONTAINER_CREDENTIALS_FULL_URI": f"{self.storage.server.url}/credentials",
            "AWS_CONTAINER_AUTHORIZATION_TOKEN": "ecs token",
            "AWS_ENDPOINT_URL_S3": self.storage.server.url,
            "STEPWELL_INPUT_URL": self.addresses[0],
            "STEPWELL_REPORT_URL": self.addresses[1],
            "STEPWELL_ATTEMPT": "{}",
            "STEPWELL_TIMEOUT_MS": "60000",
        }
        process = subprocess.Popen(
            [str(self.binary), "exec", "--", "sh", "-c", script, "step"],
            env={**variables, **env}, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def run(self, script: str, content: bytes | None = b"{}", **env: str) -> dict[str, Any]:
        process = self.start(script, content, **env)
        self.log = process.communicate(timeout=PATIENCE_S)[0]
        assert process.returncode == 0, self.log
        return self.report()

    def report(self) -> dict[str, Any]:
        report: dict[str, Any] = json.loads(self.storage.objects[self.paths[1]])
        return {**report, "stdout": base64.b64decode(report["stdout"])}


@pytest.fixture
def container(binary: Path, tmp_path: Path) -> Iterator[Container]:
    storage = Storage()
    container = Container(binary, tmp_path, storage)
    yield container
    for process in container.processes:
        process.kill()
        process.communicate()
    storage.server.close()


def test_a_program_gets_the_input_in_every_form_and_none_of_the_adapter_s_variables(container: Container) -> None:
    report = container.run('echo "$1 $(cat) $(cat $STEPWELL_INPUT) $PWD"; env | grep STEPWELL | cut -d = -f 1', b"[1]")
    words = f"[1] [1] [1] {container.folder}\nSTEPWELL_INPUT\n"
    assert (report["exit"], report["stdout"].decode()) == (0, words)
    assert list(container.folder.iterdir()) == []


def test_a_failed_program_is_reported_too(container: Container) -> None:
    report = container.run("echo why >&2; exit 4")
    assert (report["exit"], report["tail"]) == (4, "why")
    assert container.log == b"why\n"


def test_the_timeout_is_enforced(container: Container) -> None:
    assert container.run("sleep 1000", STEPWELL_TIMEOUT_MS="200")["timed_out"] is True


def test_requests_to_s3_are_signed_with_the_task_s_credentials(container: Container) -> None:
    container.use_s3()
    assert container.run('echo "$1"', b"[1]", AWS_ACCESS_KEY_ID="theirs")["stdout"] == b"[1]\n"


def test_a_bucket_in_another_region_than_the_step_s_variable_is_found(container: Container) -> None:
    container.use_s3()
    assert container.run('echo "$1"', b"[1]", AWS_REGION="us-west-2")["stdout"] == b"[1]\n"


@pytest.mark.parametrize("status", [500, 503, 403, 429])
def test_temporary_errors_are_retried(container: Container, status: int) -> None:
    container.storage.refusals = [(status, {}), (status, {})]
    assert container.run("echo '[1]'")["stdout"] == b"[1]\n"


def test_the_report_is_sent_until_it_is_accepted(container: Container) -> None:
    gate = container.folder / "gate"
    os.mkfifo(gate)
    process = container.start(f"cat {gate}; echo '[1]'")
    with gate.open("wb"):  # it has the input now
        container.storage.refusals = [(status, {}) for status in (500, 403, 404, 400, 503)]
    assert process.wait(PATIENCE_S) == 0
    assert container.report()["stdout"] == b"[1]\n"


def test_a_missing_input_is_a_start_error(container: Container) -> None:
    error = container.run("true", None)["start_error"]
    assert error["message"].startswith("the input cannot be read: 404 Not Found")
    assert error["retryable"] is True


def test_a_container_can_be_stopped_while_it_fetches_the_input(container: Container) -> None:
    container.storage.refusals = [(503, {})] * 100
    process = container.start("true")
    while len(container.storage.refusals) == 100:
        os.sched_yield()
    process.terminate()
    assert process.wait(PATIENCE_S) == 143
    assert container.paths[1] not in container.storage.objects


def test_sigterm_kills_the_program_and_nothing_is_reported(container: Container) -> None:
    gate = container.folder / "gate"
    os.mkfifo(gate)
    script = f"trap '' TERM; (setsid sleep 1000 & echo $! > {container.folder}/pid); echo > {gate}; sleep 1000"
    process = container.start(script)
    gate.read_bytes()
    process.terminate()
    assert process.wait(PATIENCE_S) == 143
    assert container.paths[1] not in container.storage.objects
    assert not Path("/proc", (container.folder / "pid").read_text().strip()).exists()


def test_declared_variables_override_dotenv_and_dotenv_overrides_the_image(container: Container) -> None:
    dotenv = json.dumps({"A": "dotenv", "B": "dotenv", "C": "dotenv"})
    show = "echo $A $B $C"
    report = container.run(show, STEPWELL_DOTENV=dotenv, B="env", C="image", STEPWELL_DECLARED="B")
    assert report["stdout"] == b"dotenv env dotenv\n"


def test_install_copies_the_adapter_for_the_task_s_other_container(binary: Path, tmp_path: Path) -> None:
    subprocess.run([str(binary), "install", str(tmp_path)], check=True)
    installed = tmp_path / "bootstrap"
    assert installed.read_bytes() == binary.read_bytes()
    assert installed.stat().st_mode & 0o777 == 0o755
    assert (tmp_path / "tmp").stat().st_mode & 0o7777 == 0o1777
    subprocess.run([str(binary), "install", str(tmp_path)], check=True)


def test_a_failed_installation_is_explained(binary: Path) -> None:
    done = subprocess.run([str(binary), "install", "/no/such"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "no such file or directory" in done.stderr


def test_wrong_arguments_print_the_usage(binary: Path) -> None:
    done = subprocess.run([str(binary), "help"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "bootstrap exec -- PROGRAM" in done.stderr
