"""Runs every example as its README describes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
import sysconfig
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner

from stepwell.aws.deploy.adapter import AdapterNotBuilt, go, go_environment
from stepwell.cli.main import app
from stepwell.project.load import load, load_all
from stepwell.project.search import Tree
from tests.brokers import redis_server
from tests.containers import BUSYBOX, engine_or_skip
from tests.ports import free_port

EXAMPLES = Path(__file__).parent.parent / "examples"
FOLDERS = sorted(folder.name for folder in EXAMPLES.iterdir() if folder.is_dir())
ROW = re.compile(r"^\| \[([a-z-]+)\]\(\1\) \|.*\| `(stepwell (?:run|dev) [^`]+)`", re.MULTILINE)
COMMANDS = dict(ROW.findall((EXAMPLES / "README.md").read_text()))
OF_WORKERS = {"celery", "faktory"}  # workers of another system run the steps; their tests start them
RUNNABLE = [name for name in FOLDERS if name not in OF_WORKERS]


@cache
def run(example: str, *options: str) -> Any:
    """Runs an example. Returns the run as `stepwell run --json` prints it."""
    result = CliRunner().invoke(app, ["run", "--json", "--no-containers", str(EXAMPLES / example), *options])
    assert result.exit_code == 0, result.output
    return orjson.loads(result.stdout)


def runnable(examples: list[str]) -> list[Any]:
    """These examples as parameters. They are skipped if what runs them (Node, wasmtime) is missing."""
    no_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
    no_wasm = pytest.mark.skipif(find_spec("wasmtime") is None, reason="wasmtime is not installed")
    needs = (("*.*js", no_node), ("*.wasm", no_wasm))
    return [
        pytest.param(example, marks=[mark for files, mark in needs if any((EXAMPLES / example).rglob(files))])
        for example in examples
    ]


def statuses(run: Any) -> dict[str, str]:
    return {step_id: step["status"] for step_id, step in run["steps"].items()}


@pytest.mark.parametrize("example", runnable(RUNNABLE))
def test_every_example_runs_unchanged(example: str) -> None:
    assert run(example)["status"] == "completed"


@pytest.mark.parametrize("example", runnable([name for name in RUNNABLE if len(shlex.split(COMMANDS[name])) > 3]))
def test_the_command_in_the_readme_works(example: str) -> None:
    _, _, path, *options = shlex.split(COMMANDS[example])
    assert path == f"examples/{example}"
    assert run(example, *options)["status"] == "completed"


def test_the_readme_names_every_example() -> None:
    assert sorted(COMMANDS) == FOLDERS


@pytest.mark.parametrize("example", FOLDERS)
def test_the_id_of_an_example_is_its_folder(example: str) -> None:
    assert load(EXAMPLES / example).definition.id == example


def test_the_examples_are_valid_and_give_no_warning() -> None:
    result = CliRunner().invoke(app, ["validate", "--json", str(EXAMPLES)])
    assert result.exit_code == 0, result.output
    assert orjson.loads(result.stdout) == {
        "functions": FOLDERS,
        "webhooks": ["github", "stripe"],
        "sources": ["orders"],
        "errors": [],
        "warnings": [],
    }


def test_templates_tests_and_benchmarks_are_not_found_as_functions() -> None:
    clone = EXAMPLES.parent
    tree = Tree([clone])
    functions, errors = load_all(tree)
    assert (errors, tree.passed_over) == ([], [])
    places = {function.file.relative_to(clone).parts[0] for function in functions}
    assert "examples" in places
    assert not places & {"bench", "build", "rehearsal", "stepwell", "tests"}


def test_the_try_script_shows_a_run() -> None:
    path = os.pathsep.join([sysconfig.get_path("scripts"), os.environ["PATH"]])
    env = {**os.environ, "PATH": path, "PORT": str(free_port())}
    script = subprocess.run(["sh", EXAMPLES / "try.sh"], env=env, capture_output=True, text=True, timeout=60)
    assert script.returncode == 0, script.stderr
    assert re.search(r"^fan-out v1 +completed .*\nrun [a-z0-9]{26} ", script.stdout, re.MULTILINE), script.stdout


# --- what each example shows -----------------------------------------------------------------------------------------


def test_fan_out_joins_the_outputs_of_its_parallel_steps() -> None:
    ended = run("fan-out")
    assert ended["steps"]["ask-ups"]["output"] == {"carrier": "ups", "price": 7.1}
    assert ended["output"] == {"choose": {"carrier": "post", "price": 5.7}}


def test_the_reminder_is_due_one_day_before_the_appointment() -> None:
    starts_at = datetime.now(UTC) + timedelta(days=10)
    event = {"name": "appointment/booked", "data": {"starts_at": starts_at.isoformat()}}
    ended = run("until", "--event", orjson.dumps(event).decode())
    due_at = datetime.fromisoformat(ended["steps"]["remind"]["attempts"][0]["queued_at"])
    assert timedelta(0) <= due_at - (starts_at - timedelta(days=1)) < timedelta(seconds=1)


def test_a_later_step_sees_the_id_of_the_event_that_was_sent() -> None:
    ended = run("send-event")
    assert ended["output"]["label"] == {"boxes": 2, "told_by": f"emit:{ended['id']}:tell"}


def test_the_wait_times_out_without_its_event() -> None:
    ended = run("wait-for-event")
    assert statuses(ended) == {"send-invoice": "completed", "ship": "skipped", "remind": "completed"}


def test_the_wait_takes_the_other_branch_with_its_event() -> None:
    ended = run("wait-for-event", "--then", '{"name": "invoice/paid", "data": {"invoice": "2026-0001"}}')
    assert statuses(ended) == {"send-invoice": "completed", "ship": "completed", "remind": "skipped"}


def test_an_event_that_does_not_match_leaves_the_wait_alone() -> None:
    ended = run("wait-for-event", "--then", '{"name": "invoice/paid", "data": {"invoice": "another"}}')
    assert statuses(ended) == {"send-invoice": "completed", "ship": "skipped", "remind": "completed"}


@pytest.mark.parametrize(
    ("options", "ended"), [(("--approve", "confirm"), "pay"), (("--decline", "confirm"), "refuse"), ((), "escalate")]
)
def test_a_decision_selects_the_branch(options: tuple[str, ...], ended: str) -> None:
    value = run("approval", *options)
    assert list(value["output"]) == [ended]
    assert value["steps"]["confirm"]["status"] == ("completed" if options else "failed")


def test_a_small_refund_needs_no_approval() -> None:
    value = run("approval", "--event", '{"name": "refund/requested", "data": {"amount": 20}}')
    assert statuses(value)["confirm"] == "skipped"
    assert value["output"] == {"pay": {"paid": True}}


def test_a_handled_failure_lets_the_run_complete() -> None:
    ended = run("handle-failure")
    assert statuses(ended) == {"charge": "failed", "ship": "skipped", "ask-for-card": "completed"}
    assert ended["output"] == {"ask-for-card": {"mail": "Please give us another card: the card has expired"}}


def test_a_retry_ends_with_the_attempt_that_succeeds() -> None:
    assert [a["status"] for a in run("retry")["steps"]["fetch"]["attempts"]] == ["failed", "failed", "completed"]


@pytest.mark.parametrize(
    ("text", "taken", "skipped"),
    [("How?", "queue", "page-somebody"), ("It is down!", "page-somebody", "queue")],
)
def test_conditions_select_one_branch_and_the_branches_join(text: str, taken: str, skipped: str) -> None:
    ended = run("conditions", "--event", orjson.dumps({"name": "ticket/opened", "data": {"text": text}}).decode())
    assert statuses(ended) == {"classify": "completed", "archive": "completed", taken: "completed", skipped: "skipped"}
    assert ended["output"] == {"archive": {"archived": True, "went_through": ["classify", taken]}}


@pytest.mark.parametrize(
    ("webhook", "headers", "body", "who", "what"),
    [
        (
            "github.yaml",
            ["--header", "X-GitHub-Event:push"],
            {"ref": "refs/heads/main", "commits": [{"id": "1"}, {"id": "2"}], "sender": {"login": "ada"}},
            "ada",
            "2 commits to refs/heads/main",
        ),
        (
            "stripe.json",
            [],
            {"type": "charge.succeeded", "created": 1, "data": {"object": {"amount": 1250, "currency": "eur"}}},
            "somebody",
            "12.50 eur",
        ),
    ],
)
def test_webhooks_make_events_that_start_the_function(
    webhook: str, headers: list[str], body: Any, who: str, what: str
) -> None:
    rule = str(EXAMPLES / "webhooks" / "webhooks" / webhook)
    arguments = ["webhooks", "test", rule, "--json", "--body", "-", *headers]
    made = CliRunner().invoke(app, arguments, input=orjson.dumps(body))
    assert made.exit_code == 0, made.output
    event = orjson.loads(made.stdout)
    ended = run("webhooks", "--event", orjson.dumps({name: event[name] for name in ("name", "data", "user")}).decode())
    assert ended["output"] == {"tell": {"who": who, "what": what}}


def test_a_trigger_expression_that_is_false_starts_nothing() -> None:
    event = '{"name": "order/placed", "user": {"created_at": "2026-01-01T00:00:00Z"}}'
    result = CliRunner().invoke(app, ["run", str(EXAMPLES / "trigger-expression"), "--event", event])
    assert result.exit_code == 1
    assert "does not start trigger-expression" in result.output


@pytest.fixture
def base_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The base image of the container example. If no registry can be reached, busybox gets the name of the image."""
    engine = engine_or_skip(tmp_path, monkeypatch)
    dockerfile = EXAMPLES / "container" / "steps" / "word-count" / "Dockerfile"
    name = dockerfile.read_text().split()[1]
    if subprocess.run([engine, "image", "inspect", name], capture_output=True, check=False).returncode == 0:
        yield
        return
    folder = tmp_path / "base"
    folder.mkdir()
    for program in ("sh", "sed"):
        shutil.copy(BUSYBOX, folder / program)
    (folder / "Dockerfile").write_text("FROM scratch\nCOPY sh sed /bin/\n")
    subprocess.run([engine, "build", "-t", name, str(folder)], capture_output=True, check=True)
    yield
    subprocess.run([engine, "rmi", "-f", name], capture_output=True, check=True)


@pytest.mark.usefixtures("base_image")
def test_the_container_example_runs_in_a_container() -> None:
    result = CliRunner().invoke(app, ["run", "--json", str(EXAMPLES / "container")])
    assert result.exit_code == 0, result.output
    (attempt,) = orjson.loads(result.stdout)["steps"]["word-count"]["attempts"]
    assert "counting" in attempt["logs"]
    assert "--no-containers" not in attempt["logs"]


def test_the_task_of_a_celery_app_is_run_by_the_worker_of_the_app(tmp_path: Path) -> None:
    pytest.importorskip("celery", reason="celery is not installed")
    folder = shutil.copytree(EXAMPLES / "celery", tmp_path / "celery")
    with redis_server(tmp_path / "redis") as port:
        url = f"redis://127.0.0.1:{port}/0"
        definition = folder / "stepwell.yaml"
        definition.write_text(definition.read_text().replace("redis://localhost:6379/0", url))
        command = [sys.executable, "-m", "celery", "-A", "shop", "worker", "--pool", "solo", "--loglevel", "ERROR"]
        with subprocess.Popen(command, cwd=folder / "app", env=os.environ | {"BROKER": url}) as worker:
            try:
                steps = run(str(folder), "--event", '{"name": "user/signed.up", "user": {"email": "bob@example.com"}}')
            finally:
                worker.kill()
    sent = {"to": "bob@example.com", "subject": "Welcome"}
    assert [step["output"] for step in steps["steps"].values()] == [sent, sent]


def test_the_module_in_go_gives_the_same_output_as_the_one_in_c(tmp_path: Path) -> None:
    pytest.importorskip("wasmtime", reason="wasmtime is not installed")
    folder = shutil.copytree(EXAMPLES / "webassembly", tmp_path / "webassembly")
    try:
        compiler, env = go(), go_environment() | {"GOOS": "wasip1", "GOARCH": "wasm"}
    except AdapterNotBuilt:
        pytest.skip("Go is not installed")
    build = [compiler, "build", "-o", "../checksum/main.wasm", "."]
    subprocess.run(build, cwd=folder / "in-go", env=env, check=True)
    options = ("--event", '{"name": "document/stored", "data": {"text": "hello"}}')
    steps = run("webassembly", *options)["steps"], run(str(folder), *options)["steps"]
    assert [step["checksum"]["output"] for step in steps] == [{"crc32": "3610a686", "bytes": 5}] * 2
    assert [step["checksum"]["attempts"][0]["logs"] for step in steps] == ["a text of 5 bytes\n"] * 2
