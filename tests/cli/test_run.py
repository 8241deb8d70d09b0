"""`stepwell run`: runs a function once, without a server."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stepwell.cli.main import app
from tests.servers import program, write_function

SAY_EVENT = {"path": "file://.", "runtime": {"type": "lambda", "command": ["sh", "say.sh"]}, "retries": {"attempts": 0}}
PAID = {"event": "paid", "match": "async.data.order == event.data.order", "ttl": "1h"}


def run(*arguments: str | Path, input: str | None = None) -> Any:
    result = CliRunner().invoke(app, ["run", *map(str, arguments)], input=input, env={"COLUMNS": "200"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def data(*arguments: str | Path, input: str | None = None, code: int = 0) -> Any:
    result = run("--json", *arguments, input=input)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


@pytest.fixture
def saying(tmp_path: Path) -> Path:
    """A function whose output is the step's input."""
    folder = write_function(tmp_path / "f", "f", {"event": "go", "expression": "data.n != 5"}, a=SAY_EVENT)
    (folder / "say.sh").write_text('echo "$1"')
    return folder


def test_it_prints_the_steps_and_the_result(tmp_path: Path) -> None:
    write_function(tmp_path, a=program("echo hello >&2; echo 1"), b=program("echo 2", after=[{"step": "a"}]))
    result = run(tmp_path)
    assert result.exit_code == 0
    assert result.stdout.index("hello") < result.stdout.index("f v1")
    assert data(tmp_path)["output"] == {"b": 2}


def test_it_needs_no_event(saying: Path) -> None:
    folder = write_function(saying, "f", "user/*", a=SAY_EVENT)
    assert data(folder)["status"] == "completed"


def test_it_warns_of_fields_that_have_an_effect_only_on_aws(tmp_path: Path) -> None:
    step = program("echo 1")
    layer = "arn:aws:lambda:eu-central-1:123456789012:layer:fonts:3"
    step["runtime"] |= {"vpc": True, "layers": [layer], "tracing": True, "ephemeral_storage": 1024}
    result = run(write_function(tmp_path, a=step))
    assert result.exit_code == 0
    assert "step `a`: `vpc`, `layers` have an effect only on AWS; here the step has this machine's" in result.stderr


def test_the_event_may_be_given_as_text_file_or_stdin(saying: Path, tmp_path: Path) -> None:
    event = '{"name": "go", "data": {"n": 7}, "user": {"id": "ada"}, "id": "mine"}'
    (tmp_path / "event.json").write_text(event)
    for option, stdin in ((event, None), (f"@{tmp_path}/event.json", None), ("-", event)):
        ended = data(saying, "--event", option, input=stdin)
        assert ended["output"]["a"]["event"]["data"] == {"n": 7}
        assert (ended["event_id"], ended["user"]) == ("mine", "ada")


@pytest.mark.parametrize(
    ("event", "says"),
    [("{", "not JSON"), ("", "not JSON"), ("@/no/such", "/no/such"), ("[]", "the array is empty"), ("7", "--event"),
     ('[{"name": "a"}, {"name": "b"}]', "one event"), ('{"data": {}}', "/name"), ('{"name": "go", "data": 1}', "/data"),
     ('{"name": "go", "x": 1}', "/x"), ('{"name": "go", "data": {"n": 123456789012345678901234567890}}', "64 bits")],
)  # fmt: skip
def test_an_invalid_event_is_wrong_usage(saying: Path, event: str, says: str) -> None:
    for option in ("--event", "--then"):
        other = () if option == "--event" else ("--event", '{"name": "go", "data": {"n": 1}}')
        if option == "--then":
            write_function(saying, "f", "go", a=SAY_EVENT, b={**SAY_EVENT, "after": [{"step": "a", "async": PAID}]})
        result = run(saying, *other, option, event)
        assert result.exit_code == 2, result.output
        assert says.replace("--event", option) in result.stderr
        assert "Traceback" not in result.output


def test_the_reason_is_printed_if_the_event_does_not_start_the_function(saying: Path) -> None:
    for event, why in (
        ('{"name": "go", "data": {"n": 5}}', "data.n != 5"),
        ('{"name": "go"}', "data.n != 5"),
        ('{"name": "other"}', "other"),
    ):
        result = run(saying, "--event", event)
        assert result.exit_code == 1
        assert why in result.stderr
        assert "f" in result.stderr


def test_a_failed_run_exits_with_1(tmp_path: Path) -> None:
    write_function(tmp_path, a=program("echo broken >&2; exit 3"))
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "broken" in result.stdout
    assert "failed at step a" in result.stdout
    assert data(tmp_path, code=1)["status"] == "failed"


def test_delays_retries_and_waits_take_no_time(tmp_path: Path) -> None:
    flaky = 'case "$1" in *\'"attempt":3\'*) echo 3;; *) exit 1;; esac'
    write_function(tmp_path, a=program("true"))
    (tmp_path / "flaky.sh").write_text(flaky)
    again = {**SAY_EVENT, "runtime": {"type": "lambda", "command": ["sh", "flaky.sh"]}, "retries": {"attempts": 4}}
    late = program("echo 4", after=[{"step": "a", "wait": "30d"}])
    never = program(
        "echo 5", after=[{"step": "late", "async": {**PAID, "match": "async.data.x == 1", "onTimeout": True}}]
    )
    write_function(tmp_path, a=again, late=late, never=never)
    ended = data(tmp_path)
    assert [attempt["status"] for attempt in ended["steps"]["a"]["attempts"]] == ["failed", "failed", "completed"]
    assert ended["output"] == {"never": 5}


@pytest.mark.parametrize(
    ("wait", "text"), [("90s", "90.0 s"), ("5m", "5 min 0 s"), ("26h", "26 h 0 min"), ("3d", "3 d 0 h")]
)
def test_a_delay_that_is_skipped_is_shown_in_units_that_fit_it(tmp_path: Path, wait: str, text: str) -> None:
    write_function(tmp_path, a=program("echo 1"), b=program("echo 2", after=[{"step": "a", "wait": wait}]))
    assert f"... {text} later" in run(tmp_path).output


def test_real_time_is_real(tmp_path: Path) -> None:
    from datetime import datetime

    write_function(tmp_path, a=program("echo 1", after=[{"step": "$trigger", "wait": "300ms"}]))
    ended = data(tmp_path, "--real-time")
    took = datetime.fromisoformat(ended["ended_at"]) - datetime.fromisoformat(ended["created_at"])
    assert 0.3 <= took.total_seconds() < 5


def test_then_sends_events_to_waits_in_order(saying: Path) -> None:
    first = {**SAY_EVENT, "after": [{"step": "$trigger", "async": PAID}]}
    second = {**SAY_EVENT, "after": [{"step": "a", "async": {**PAID, "event": "shipped"}}]}
    write_function(saying, "f", "go", a=first, b=second)
    events = [json.dumps({"name": name, "data": {"order": 1, "n": n}}) for name, n in (("paid", 1), ("shipped", 2))]
    ended = data(saying, "--event", '{"name": "go", "data": {"order": 1}}', "--then", events[0], "--then", events[1])
    assert ended["output"]["b"]["async"]["data"]["n"] == 2
    assert ended["output"]["b"]["steps"]["a"]["async"]["data"]["n"] == 1


def test_a_then_event_that_is_not_sent_is_reported(saying: Path) -> None:
    result = run(saying, "--event", '{"name": "go", "data": {"n": 1}}', "--then", '{"name": "late"}')
    assert result.exit_code == 0
    assert "late" in result.stderr


def test_a_cron_function_gets_its_tick(saying: Path) -> None:
    write_function(saying, "f", {"cron": "0 9 * * 1"}, a=SAY_EVENT)
    event = data(saying)["output"]["a"]["event"]
    assert (event["name"], event["data"]["cron"]) == ("stepwell/scheduled.timer", "0 9 * * 1")


def test_a_definition_that_does_not_load_is_reported_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "stepwell.json").write_text('{"id": "f"')
    for path, says in (
        (tmp_path, "stepwell.json:1:"),
        (tmp_path / "missing", "missing"),
        (tmp_path.parent, "stepwell.json"),
    ):
        result = run(path)
        assert result.exit_code == 1
        assert says in result.stderr


def test_a_step_this_machine_cannot_run_is_named(tmp_path: Path) -> None:
    write_function(tmp_path, a={"path": "file://.", "runtime": {"type": "lambda", "command": ["no-such-program"]}})
    result = run(tmp_path)
    assert result.exit_code == 1
    assert "no-such-program" in result.stderr
    assert "step a" in result.stderr


def test_a_function_with_an_engine_event_as_trigger_runs_on_a_given_event(tmp_path: Path) -> None:
    write_function(tmp_path, "f", "stepwell/run.failed", a=program("echo 1"))
    event = {"name": "stepwell/run.failed", "data": {"run_id": "r"}}
    assert data("--event", json.dumps(event), tmp_path)["status"] == "completed"
    assert data(tmp_path)["status"] == "completed"


# --- approvals -------------------------------------------------------------------------------------------------------

ASKS = {"runtime": {"type": "approval", "message": "Pay {{ data.n }}?", "approvers": ["Ada"]}}


@pytest.fixture
def asking(tmp_path: Path) -> Path:
    yes = program("echo '\"paid\"'", after=[{"step": "ask", "if": "response.approved"}])
    no = program("echo '\"kept\"'", after=[{"step": "ask", "if": "!response.approved"}])
    return write_function(tmp_path / "f", ask=ASKS, yes=yes, no=no)


def test_options_decide_approvals(asking: Path) -> None:
    event = ("--event", '{"name": "go", "data": {"n": 7}}')
    assert data(asking, *event, "--approve", "ask")["output"] == {"yes": "paid"}
    assert data(asking, *event, "--decline", "ask")["output"] == {"no": "kept"}


def test_without_a_terminal_an_approval_times_out_with_advice(asking: Path) -> None:
    result = run("--json", asking, "--event", '{"name": "go", "data": {"n": 7}}')
    assert result.exit_code == 1
    assert json.loads(result.stdout)["error"]["kind"] == "approval_timeout"
    assert "pass --approve ask or --decline ask" in result.stderr


def test_an_approval_whose_message_fails_is_reported(asking: Path) -> None:
    result = run(asking, "--approve", "ask")
    assert result.exit_code == 1
    assert "message_failed" in result.stdout
    assert '`{{ data.n }}` has no value: there is no key "n"' in " ".join(result.stdout.split())


def test_a_condition_without_a_value_fails_the_run_and_is_shown(tmp_path: Path) -> None:
    edges = {"if": "event.data.totl > 1000", "step": "a"}
    folder = write_function(tmp_path / "f", a=program("echo 1"), b=program("echo 2", after=[edges]))
    result = run(folder)
    assert result.exit_code == 1
    shown = " ".join(result.stdout.replace("│", " ").split())
    assert "failed at step b: cannot decide whether `b` runs after `a`" in shown
    assert '`event.data.totl > 1000`, has no value: there is no key "totl"' in shown
    assert "has(...)" in shown


@pytest.mark.parametrize(
    ("options", "says"),
    [(("--approve", "yes"), "it has ask"), (("--approve", "ask", "--decline", "ask"), "not both")],
)
def test_a_decision_on_another_step_is_wrong_usage(asking: Path, options: tuple[str, ...], says: str) -> None:
    result = run(asking, *options)
    assert result.exit_code == 2
    assert says in result.stderr


@pytest.mark.parametrize(("keys", "ended"), [(b"y\rfine\r", "paid"), (b"n\r\r", "kept")])
def test_at_a_terminal_it_asks(asking: Path, keys: bytes, ended: str) -> None:
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "stepwell", "run", str(asking), "--event", '{"name": "go", "data": {"n": 7}}']
    process = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env={**os.environ, "COLUMNS": "200"}
    )
    os.close(terminal)
    shown = b""
    for prompt, answer in zip((b"approve? [y/N]:", b"comment"), keys.splitlines(keepends=True), strict=True):
        while prompt not in shown:
            shown += os.read(controller, 1000)
        os.write(controller, answer)
    with suppress(OSError):  # the other end is closed
        while piece := os.read(controller, 1000):
            shown += piece
    os.close(controller)
    assert process.wait(20) == 0
    assert b"Pay 7?" in shown
    assert f'"{ended}"'.encode() in shown
    assert (b'"comment":"fine"' in shown) == (ended == "paid")
