"""Steps in real containers, with docker or podman."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from stepwell.core.plan import Runtime
from stepwell.local.runners.container import image_of, unreceived, variables
from stepwell.local.runners.image import find_engine
from stepwell.local.runners.job import CannotRun, Job
from stepwell.local.runners.router import Runners
from tests.local.attempts import INPUT, Start, job, on_runners, put, run

_FOR_SANDBOXES = """
[containers]
default_ulimits=["nofile=1024:1024","nproc=1024:1024"]
netns="none"
[engine]
runtime="runc"
"""
_DOCKERFILE = """FROM scratch
COPY busybox /bin/busybox
COPY step.sh /step.sh
ENTRYPOINT ["/bin/busybox", "sh", "/step.sh"]
"""


_built: list[str] = []


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A working engine, and the environment that it needs."""
    if not Path("/bin/busybox").exists():
        pytest.skip("there is no static busybox to make an image of")
    config = tmp_path_factory.mktemp("containers") / "containers.conf"
    config.write_text(_FOR_SANDBOXES)
    with pytest.MonkeyPatch.context() as patch:
        if "CONTAINERS_CONF" not in os.environ:
            patch.setenv("CONTAINERS_CONF", str(config))
        try:
            engine = find_engine()
        except CannotRun as reason:
            pytest.skip(str(reason))
        yield engine
        subprocess.run([engine, "rmi", "-f", *_built], capture_output=True, check=False)


def image(folder: Path, script: str, dockerfile: str = _DOCKERFILE, **options: Any) -> Job:
    put(folder, step__sh=script, Dockerfile=dockerfile)
    if Path("/bin/busybox").is_file():  # otherwise no image can be built
        shutil.copy("/bin/busybox", folder / "busybox")
    fields = {name: options.pop(name) for name in ("entrypoint", "cpu", "memory", "image") if name in options}
    value = job(folder, Runtime("docker", **fields), **options)
    _built.append(image_of(value)[0])
    return value


def containers(engine: str) -> list[str]:
    listed = subprocess.run([engine, "ps", "-a", "--format", "{{.Names}}"], capture_output=True, text=True, check=True)
    return [name for name in listed.stdout.split() if name.startswith("stepwell-")]


def left_over(engine: str) -> set[str]:
    """Containers that are not removed; those of parallel tests are removed soon."""
    left, deadline = set(containers(engine)), time.monotonic() + 20
    while left and time.monotonic() < deadline:
        left &= set(containers(engine))
    return left


def test_the_input_is_the_last_argument_stdin_and_a_file(engine: str, tmp_path: Path) -> None:
    script = 'echo log >&2; printf "[%s, %s, %s]" "$1" "$(/bin/busybox cat)" "$(/bin/busybox cat "$STEPWELL_INPUT")"'
    attempt = run(image(tmp_path, script))
    assert attempt.output == [orjson.loads(INPUT)] * 3
    assert "log\n" in attempt.log("stderr")
    assert left_over(engine) == set()


def test_an_input_above_96_kib_is_named_not_given(engine: str, tmp_path: Path) -> None:
    """The step reads its stdin: podman may lose output if a container ends with more unread input than a pipe holds."""
    content = b'"' + b"x" * 600_000 + b'"'
    script = '/bin/busybox cat >/dev/null; printf \'["%s", %s]\' "$1" "$(/bin/busybox wc -c <"$STEPWELL_INPUT")"'
    assert run(image(tmp_path, script, content=content)).output == ["@/stepwell/input.json", 600_002]


PRINTS = {
    "a line": "echo line",
    "no line break at the end": "printf 'one\\ntwo'",
    "nothing": "",
    "empty lines": "echo; echo; echo",
    "both streams": "echo out; echo err >&2; printf more",
    "a long line": "/bin/busybox head -c 100000 /dev/zero | /bin/busybox tr '\\0' x",
    "no text": "printf '\\000\\001\\r\\n\\377'",
}


@pytest.mark.parametrize("case", PRINTS)
@pytest.mark.parametrize("received", [0, 3])
def test_output_lost_by_podmans_client_is_read_from_the_monitors_log(
    engine: str, tmp_path: Path, case: str, received: int
) -> None:
    if Path(engine).name != "podman":
        pytest.skip("docker's client loses nothing")
    job, printed = image(tmp_path, PRINTS[case]), tmp_path / "printed"
    run(job)  # also builds the image
    driver = ["--log-driver", "k8s-file", "--log-opt", f"path={printed}"]
    done = subprocess.run([engine, "run", "--rm", *driver, image_of(job)[0]], capture_output=True, check=True)
    found = {"stdout": b"", "stderr": b""}
    for stream, piece in unreceived(printed, {"stdout": received, "stderr": received}):
        found[stream] += piece
    assert found == {"stdout": done.stdout[received:], "stderr": done.stderr[received:]}


def test_the_images_command_comes_before_the_input(engine: str, tmp_path: Path) -> None:
    dockerfile = _DOCKERFILE.replace("ENTRYPOINT", "CMD")
    assert run(image(tmp_path, 'echo "[$#]"', dockerfile)).output == [1]


def test_variables_limits_and_another_entrypoint_are_passed(engine: str, tmp_path: Path) -> None:
    env = {"A": "1 'two'", "PATH": "/bin", "LINES": "a\nb"}
    entrypoint = ("/bin/busybox", "sh", "-c", 'echo "$A|$PATH|$LINES|$SERVER"')
    job = image(tmp_path, "", entrypoint=entrypoint, cpu=0.5, memory=64, env=env)
    assert run(job).output == {"body": "1 'two'|/bin|a\nb|"}


def test_a_container_fails_by_its_exit_code_and_the_image_is_built_once(engine: str, tmp_path: Path) -> None:
    job = image(tmp_path, 'echo "{\\"status\\": 422}"; echo no >&2; exit 3')

    async def work(start: Start) -> None:
        attempts = [start(job), start(job)]
        for attempt in attempts:
            assert (await attempt.end()).error == ("exit", False, "exit code 3: no")
        assert attempts[0].log("system") == attempts[1].log("system") != ""
        assert (await start(job).end()).log("system") == ""

    on_runners(work)


def test_a_failed_build_is_reported_and_retried(engine: str, tmp_path: Path) -> None:
    attempt = run(image(tmp_path, "", "FROM scratch\nCOPY nothing /nothing\n"))
    kind, retryable, message = attempt.error
    assert (kind, retryable) == ("start", True)
    assert "build failed: " in message
    assert "nothing" in attempt.log("system")


def test_a_container_that_cannot_start_is_reported(engine: str, tmp_path: Path) -> None:
    kind, _, message = run(image(tmp_path, "", entrypoint=("/no/such/program",))).error
    assert kind in ("start", "exit")
    assert "/no/such/program" in message


def test_a_timeout_kills_the_container(engine: str, tmp_path: Path) -> None:
    attempt = run(image(tmp_path, "trap '' TERM; /bin/busybox sleep 600", timeout_ms=2000))
    assert attempt.error == ("timeout", True, "the attempt did not end within the timeout of 2 s")
    assert left_over(engine) == set()


def test_a_stop_kills_the_container(engine: str, tmp_path: Path) -> None:
    async def work(start: Start) -> None:
        job = image(tmp_path, "echo ready >&2; /bin/busybox sleep 600")
        attempt = await start(job).until(lambda attempt: "ready" in attempt.log("stderr"))
        attempt.running.stop()
        attempt.running.stop()
        assert (await attempt.end()).error[0] == "stopped"
        assert left_over(engine) == set()

    on_runners(work)


def test_values_of_variables_are_in_no_argument(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHARED", "server")
    monkeypatch.setenv("STRIPE_SECRET", "hush")
    value = job(None, Runtime("docker"), env={"TOKEN": "t0ken", "DOCKER_HOST": "tcp://x", "SHARED": "step"})
    options, env = variables(value, str(tmp_path / "env"))
    assert options == ["-e", "TOKEN", "-e", "SHARED", "--env-file", str(tmp_path / "env")]
    assert (env["TOKEN"], env["SHARED"], env.get("DOCKER_HOST")) == ("t0ken", "step", os.environ.get("DOCKER_HOST"))
    assert (tmp_path / "env").read_text() == "DOCKER_HOST=tcp://x\n"
    assert "STRIPE_SECRET" not in env  # a client gets only what it needs of the server's environment
    assert env["PATH"] == os.environ["PATH"]


def test_without_containers_the_dockerfiles_program_runs_here(tmp_path: Path) -> None:
    job = image(tmp_path, 'pwd >&2; echo "[$#, $(wc -c)]"', 'FROM alpine\nCMD ["sh", "step.sh"]\n')
    attempt = run(job, no_containers=True)
    assert attempt.output == [1, len(INPUT)]
    assert attempt.log("stderr") == f"{tmp_path}\n"
    assert attempt.log("system") == "--no-containers: runs as a local program, without its image\n"


def test_an_image_cannot_run_without_containers() -> None:
    value = job(None, Runtime("docker", image="alpine"))
    kind, retryable, message = run(value, no_containers=True).error
    assert (kind, retryable) == ("start", False)
    assert "--no-containers" in message
    assert Runners(no_containers=True).check(value.step, None) == message


def test_without_an_engine_the_error_names_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    kind, retryable, message = run(job(None, Runtime("docker", image="alpine"))).error
    assert (kind, retryable) == ("start", False)
    assert message == (
        "found no container engine (docker is not on PATH; podman is not on PATH); "
        "install and start docker or podman, or start with --no-containers"
    )
