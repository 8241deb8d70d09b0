"""Lambda handlers in warm workers."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.plan import Runtime
from stepwell.local.runners import channel, worker
from stepwell.local.runners.handler import HandlerRunner
from stepwell.local.runners.job import Job
from stepwell.local.runners.scratch import Scratch
from tests.local.attempts import Attempt, Start, handler, is_running, job, on_runners, put, run, until

node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")

APP = """
import os, sys, time
count = 0
def handler(event, context):
    global count
    count += 1
    return {"pid": os.getpid(), "count": count, "name": event["event"]["name"]}
"""


def py(folder: Path, body: str, **options: Any) -> Job:
    lines = "\n".join(f"    {line}" for line in body.splitlines())
    code = put(folder, app__py=f"import os, sys, json, time, subprocess\ndef handler(event, context):\n{lines}\n")
    return handler(code, "app.handler", **options)


def js(folder: Path, body: str, **options: Any) -> Job:
    return handler(put(folder, app__js=body), "app.handler", **options)


# --- python ----------------------------------------------------------------------------------------------------------


def test_a_worker_is_kept_for_the_next_attempt(tmp_path: Path) -> None:
    job = handler(put(tmp_path, app__py=APP), "app.handler")

    async def work(start: Start) -> None:
        first, second = (await start(job).end()).output, (await start(job).end()).output
        assert (first["name"], first["count"], second["count"]) == ("user/signed.up", 1, 2)
        assert first["pid"] == second["pid"]
        assert is_running(first["pid"])
        pids.append(first["pid"])

    pids: list[int] = []
    on_runners(work)
    assert not is_running(pids[0])


def test_attempts_at_the_same_time_have_workers_of_their_own(tmp_path: Path) -> None:
    job = py(tmp_path, "time.sleep(0.2)\nreturn os.getpid()")

    async def work(start: Start) -> None:
        attempts = [start(job) for _ in range(3)]
        assert len({(await attempt.end()).output for attempt in attempts}) == 3
        again = (await start(job).end()).output
        assert again in {attempt.output for attempt in attempts}

    on_runners(work)


def test_other_variables_or_code_get_another_worker(tmp_path: Path) -> None:
    async def work(start: Start) -> None:
        body = "return [os.getpid(), os.environ.get('A')]"
        jobs = [py(tmp_path / "a", body), py(tmp_path / "a", body, env={"A": "1"}), py(tmp_path / "b", body)]
        outputs = [(await start(job).end()).output for job in jobs]
        assert len({pid for pid, _ in outputs}) == 3
        assert [value for _, value in outputs] == [None, "1", None]

    on_runners(work)


@pytest.mark.parametrize("name", ["src/app.handler", "src.app.handler"])
@pytest.mark.parametrize("file", ["src/app.py", "src/app/__init__.py"])
def test_a_handler_may_be_in_a_package(tmp_path: Path, name: str, file: str) -> None:
    put((tmp_path / file).parent)
    (tmp_path / file).write_text("def handler(event, context): return __name__")
    assert run(handler(tmp_path, name)).output == "src.app"


def test_the_environment_equals_that_of_lambda(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SERVER_SECRET", "x")
    code = py(tmp_path, "return [dict(os.environ), os.getcwd(), sys.path[0]]").code
    env, cwd, first = run(job(code, Runtime("lambda", handler="app.handler", memory=256), env={"A": "1"})).output
    assert cwd == first == str(tmp_path)
    assert "SERVER_SECRET" not in env
    assert (
        env.items()
        >= {
            "A": "1",
            "AWS_LAMBDA_FUNCTION_NAME": "function-1",
            "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
            "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": "256",
            "LAMBDA_TASK_ROOT": str(tmp_path),
            "_HANDLER": "app.handler",
            "PYTHONDONTWRITEBYTECODE": "1",
        }.items()
    )
    assert not (tmp_path / "__pycache__").exists()


def test_the_context_equals_that_of_lambda(tmp_path: Path) -> None:
    job = py(
        tmp_path,
        """
left = context.get_remaining_time_in_millis()
return [9000 < left <= 10000, len(context.aws_request_id), context.function_name, context.function_version,
        context.invoked_function_arn, context.memory_limit_in_mb, context.log_group_name, context.log_stream_name,
        context.identity, context.client_context]
""".strip(),
        timeout_ms=10_000,
    )
    name = "function-1"
    arn = f"arn:aws:lambda:local:000000000000:function:{name}"
    assert run(job).output == [True, 36, name, "$LATEST", arn, "128", f"/aws/lambda/{name}", "local", None, None]


def test_the_steps_own_virtual_environment_runs_its_handler(tmp_path: Path) -> None:
    job = py(tmp_path, "return os.environ['WHICH']")
    put(tmp_path / ".venv" / "bin", python=f'#!/bin/sh\nWHICH=own exec {sys.executable} "$@"\n')
    assert run(job).output == "own"


def test_worker_scripts_do_not_shadow_the_standard_library(tmp_path: Path) -> None:
    assert run(py(tmp_path, "import http.client, job\nreturn job.MINE")).error[2].startswith("ModuleNotFoundError")
    assert run(py(put(tmp_path / "b", job__py="MINE = 1"), "import http.client, job\nreturn job.MINE")).output == 1


def test_output_is_logged_with_its_attempt(tmp_path: Path) -> None:
    job = py(
        tmp_path,
        """
print(event["n"], flush=False); sys.stdout.write("no newline"); print("err", file=sys.stderr)
subprocess.run(["echo", "child"])
os.write(1, b"raw")
""".strip(),
        content=b'{"n": 1}',
    )

    async def work(start: Start) -> None:
        for _ in range(3):
            attempt = await start(job).end()
            assert attempt.output is None
            for text in ("1\n", "no newline", "child\n", "raw"):
                assert text in attempt.log("stdout")
            assert attempt.log("stderr") == "err\n"

    on_runners(work)


def test_a_long_log_is_complete(tmp_path: Path) -> None:
    attempt = run(py(tmp_path, "for i in range(30000): print(i)"))
    assert attempt.log("stdout").split() == [str(i) for i in range(30000)]


def test_a_log_record_of_level_info_is_visible(tmp_path: Path) -> None:
    code = put(
        tmp_path,
        app__py="""
import logging
logging.getLogger().setLevel("INFO")
def handler(event, context): logging.info("hello")
""",
    )
    assert "hello" in run(handler(code, "app.handler")).log("stderr")


def test_an_exception_is_a_failure_with_its_traceback_in_the_log(tmp_path: Path) -> None:
    job = py(tmp_path, "print(os.getpid())\nraise ValueError('no\\nway')")

    async def work(start: Start) -> None:
        first, second = await start(job).end(), await start(job).end()
        assert first.error == ("exception", True, "ValueError: no\nway")
        assert 'app.py", line 4, in handler' in first.log("stderr")
        assert "python_worker" not in first.log("stderr")
        assert first.log("stdout") == second.log("stdout")  # the same worker

    on_runners(work)


@pytest.mark.parametrize("value", ["{1, 2}", "{(1, 2): 3}", "[b'\\xff']", "'\\ud800'", "context"])
def test_a_return_value_that_is_not_json_is_a_failure(tmp_path: Path, value: str) -> None:
    kind, retryable, message = run(py(tmp_path, f"return {value}")).error
    assert (kind, retryable) == ("exception", True)
    assert message.startswith("Runtime.MarshalError: ")


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ("2**64", "invalid_output"),
        ("float('nan')", "invalid_output"),
        ("'x' * 300_000", "output_too_large"),
        ("'x' * 3_000_000", "output_too_large"),
    ],
)
def test_a_return_value_that_cannot_be_stored_is_a_final_failure(tmp_path: Path, value: str, kind: str) -> None:
    assert run(py(tmp_path, f"return {value}")).error[:2] == (kind, False)


def test_a_module_of_the_handlers_may_have_the_name_of_one_of_the_workers(tmp_path: Path) -> None:
    code = put(
        tmp_path,
        python_marshal__py="marshal = 'mine'",
        app__py="import python_marshal, sys\n"
        "def handler(event, context): return [python_marshal.marshal, [p for p in sys.path if p.endswith('/runners')]]",
    )
    assert run(handler(code, "app.handler")).output == ["mine", []]


def test_a_returned_status_is_a_failure(tmp_path: Path) -> None:
    assert run(py(tmp_path, "return {'statusCode': 404}")).error[:2] == ("status", False)


def test_a_failed_import_is_retried_in_a_new_worker(tmp_path: Path) -> None:
    flag = tmp_path / "flag"
    code = put(
        tmp_path / "code",
        app__py=f"""
import pathlib
if not pathlib.Path({str(flag)!r}).exists(): raise RuntimeError("not yet")
def handler(event, context): return 1
""",
    )
    job = handler(code, "app.handler")

    async def work(start: Start) -> None:
        attempt = await start(job).end()
        assert attempt.error == ("exception", True, "RuntimeError: not yet")
        assert "Traceback" in attempt.log("stderr")
        flag.touch()
        assert (await start(job).end()).output == 1

    on_runners(work)


@pytest.mark.parametrize(
    ("name", "why"),
    [("app.nothing", "the module app has no function nothing"), ("web.handler", "looked for web.py, .js, .mjs, .cjs")],
)
def test_a_missing_handler_is_a_final_failure(tmp_path: Path, name: str, why: str) -> None:
    kind, retryable, message = run(handler(put(tmp_path, app__py=APP), name)).error
    assert (kind, retryable) == ("start", False)
    assert why in message


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("sys.exit(3)", "exit code 3"),
        ("sys.exit()", "exit code 0"),
        ("os._exit(4)", "exit code 4"),
        ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
        ("os.kill(0, 9)", "killed by SIGKILL"),
        ("os.closerange(3, 65536); time.sleep(60)", "killed by SIGKILL"),
    ],
)
def test_a_handler_that_kills_its_process_does_not_affect_the_next(tmp_path: Path, body: str, why: str) -> None:
    job = py(tmp_path, f"if event['crash']:\n    print('before')\n    {body}\nreturn 1", content=b'{"crash": true}')
    other = py(tmp_path, f"if event['crash']:\n    print('before')\n    {body}\nreturn 1", content=b'{"crash": false}')

    async def work(start: Start) -> None:
        attempt = await start(job).end()
        assert attempt.error[:2] == ("crash", True)
        assert why in attempt.error[2]
        assert attempt.log("stdout") == "before\n"
        assert (await start(other).end()).output == 1

    on_runners(work)


def test_a_timeout_kills_the_worker_and_its_children(tmp_path: Path) -> None:
    body = "print(os.getpid(), subprocess.Popen(['sleep', '600']).pid, flush=True)\ntime.sleep(600)"

    async def work(start: Start) -> None:
        attempt = await start(py(tmp_path, body, timeout_ms=700)).end()
        assert attempt.error == ("timeout", True, "the attempt did not end within the timeout of 0.7 s")
        pids = [int(pid) for pid in attempt.log().split()]
        await until(lambda: not any(map(is_running, pids)))

    on_runners(work)


def test_a_stop_kills_the_worker(tmp_path: Path) -> None:
    async def work(start: Start) -> None:
        attempt = await start(py(tmp_path, "print('x')\ntime.sleep(600)")).until(lambda a: a.log())
        attempt.running.stop()
        attempt.running.stop()
        assert (await attempt.end()).error[:2] == ("stopped", False)

    on_runners(work)


def test_a_stop_after_the_end_does_not_kill_the_worker(tmp_path: Path) -> None:
    job = py(tmp_path, "time.sleep(0.1)\nreturn os.getpid()")

    async def work(start: Start) -> None:
        first = await start(job).end()
        second = start(job)
        first.running.stop()
        assert (await second.end()).output == first.output

    on_runners(work)


def test_a_worker_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    job = py(tmp_path, "return os.getpid()")

    async def work(start: Start) -> None:
        pid = (await start(job).end()).output
        os.kill(pid, 9)
        await until(lambda: not is_running(pid))
        assert (await start(job).end()).output != pid

    on_runners(work)


def test_large_inputs_and_outputs_pass(tmp_path: Path) -> None:
    job = py(tmp_path, "return [len(event), event[:250_000]]", content=b'"' + b"x" * 640_000 + b'"')

    async def work(start: Start) -> None:
        for attempt in [start(job), start(job)]:
            assert (await attempt.end()).output == [640_000, "x" * 250_000]

    on_runners(work)


def test_inputs_and_outputs_in_many_pieces_pass(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on systems whose sockets have small buffers."""
    monkeypatch.setattr(channel, "_SEND_BYTES", 1)
    monkeypatch.setattr(worker, "_PIECE", 3)
    job = py(tmp_path, "return [len(event), event[:2000]]", content=b'"' + b"x" * 640_000 + b'"')

    async def work(start: Start) -> None:
        for _ in range(2):
            assert (await start(job).end()).output == [640_000, "x" * 2000]

    on_runners(work)


def test_tmpdir_is_emptied_between_attempts(tmp_path: Path) -> None:
    body = """
import pathlib
tmp = pathlib.Path(os.environ["TMPDIR"])
found = [path.name for path in tmp.iterdir()]
(tmp / "folder").mkdir()
(tmp / "folder" / "file").touch()
(tmp / "link").symlink_to("/")
return found
""".strip()

    async def work(start: Start) -> None:
        job = py(tmp_path, body)
        for _ in range(3):
            assert (await start(job).end()).output == []

    on_runners(work)


async def with_runner(work: Callable[[HandlerRunner], Awaitable[None]], **limits: int) -> None:
    scratch = Scratch()
    runner = HandlerRunner(scratch, **limits)
    await work(runner)
    await runner.close()
    await scratch.close()


async def pid_of(runner: HandlerRunner, job: Job) -> int:
    return int((await Attempt(runner, job).end()).output)


def test_workers_that_wait_too_long_or_are_too_many_are_stopped(tmp_path: Path) -> None:
    jobs = {name: py(tmp_path / name, "return os.getpid()") for name in "abc"}

    async def work(runner: HandlerRunner) -> None:
        pids = {name: await pid_of(runner, jobs[name]) for name in "abbbc"}
        await until(lambda: not is_running(pids["a"]) and not is_running(pids["c"]))
        assert is_running(pids["b"])  # used more often than the others
        runner.sweep(0)
        await until(lambda: not is_running(pids["b"]))

    on_runners(lambda _: with_runner(work, most_idle=1, always_idle=1))


def test_handlers_that_take_turns_keep_their_workers(tmp_path: Path) -> None:
    jobs = [py(tmp_path / str(number), "return os.getpid()") for number in range(20)]

    async def work(runner: HandlerRunner) -> None:
        first = [await pid_of(runner, job) for job in jobs]
        assert [await pid_of(runner, job) for job in jobs] == first

    on_runners(lambda _: with_runner(work, always_idle=1))


@pytest.mark.skipif(sys.platform != "linux", reason="needs Linux: elsewhere nobody knows what a process shares")
def test_workers_that_have_too_much_memory_together_are_stopped(tmp_path: Path) -> None:
    large = [py(tmp_path / str(n), "global held\nheld = b'x' * 100_000_000\nreturn os.getpid()") for n in range(3)]

    async def work(runner: HandlerRunner) -> None:
        pids = [await pid_of(runner, job) for job in large]
        await until(lambda: not is_running(pids[2]))
        assert is_running(pids[0])
        assert is_running(pids[1])

    on_runners(lambda _: with_runner(work, always_idle=1, most_idle_bytes=250_000_000))


# --- node ------------------------------------------------------------------------------------------------------------


@node
@pytest.mark.parametrize(
    ("body", "output"),
    [
        ("exports.handler = async (event) => event.event.name", "user/signed.up"),
        ("exports.handler = (event) => Promise.resolve([event.event.data.n])", [1]),
        ("exports.handler = (event, context, callback) => setTimeout(() => callback(null, 1), 5)", 1),
        ("exports.handler = (event, context, callback) => { callback(null, 1); callback(null, 2); }", 1),
        ("exports.handler = (event, context) => { context.succeed(1) }", 1),
        ("exports.handler = (event, context) => { setTimeout(() => context.done(null, 1), 5) }", 1),
        ("exports.handler = (event) => 1", 1),
        ("exports.handler = (event) => {}", None),
        ("exports.handler = async (event) => {}", None),
        ("exports.handler = async (event) => NaN", None),
        (
            "exports.handler = async (event, context) => { let left = context.getRemainingTimeInMillis(); "
            "return [left > 9000, context.awsRequestId.length, context.functionName, context.functionVersion, "
            "context.memoryLimitInMB, context.logGroupName, context.logStreamName] }",
            [True, 36, "function-1", "$LATEST", "128", "/aws/lambda/function-1", "local"],
        ),
        (
            "exports.handler = async (event) => [process.cwd() === process.env.LAMBDA_TASK_ROOT, process.env.HIDDEN]",
            [True, None],
        ),
    ],
)
def test_a_node_handler_may_return_promise_or_call_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, output: object
) -> None:
    monkeypatch.setenv("HIDDEN", "x")
    assert run(js(tmp_path, body)).output == output


@node
@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"app__mjs": "export const handler = async () => import.meta.url.slice(-7)"}, "app.handler"),
        ({"app__cjs": "exports.handler = async () => __filename.slice(-7)"}, "app.handler"),
        (
            {
                "app__js": "export const handler = () => import.meta.url.slice(-6)",
                "package__json": '{"type": "module"}',
            },
            "app.handler",
        ),
        ({"app__mjs": "export default { handler: () => 'app.js' }"}, "app.handler"),
    ],
)
def test_both_kinds_of_node_modules_work(tmp_path: Path, files: dict[str, str], name: str) -> None:
    assert run(handler(put(tmp_path, **files), name)).output in ("app.mjs", "app.cjs", "app.js")


@node
@pytest.mark.parametrize(
    ("body", "error"),
    [
        ("exports.handler = async () => { throw new TypeError('no') }", ("exception", True, "TypeError: no")),
        ("exports.handler = () => { throw new TypeError('no') }", ("exception", True, "TypeError: no")),
        ("exports.handler = (e, c, callback) => callback(new Error('no'))", ("exception", True, "Error: no")),
        ("exports.handler = (e, c, callback) => callback('text')", ("exception", True, "text")),
        ("exports.handler = (e, c) => c.fail('text')", ("exception", True, "text")),
        (
            "exports.handler = () => { setTimeout(() => { throw new Error('late') }, 5) }",
            ("exception", True, "Error: late"),
        ),
        (
            "exports.handler = async () => {"
            " Promise.reject(new Error('lost')); await new Promise(r => setTimeout(r)) }",
            ("exception", True, "Error: lost"),
        ),
        (
            "exports.handler = () => new Promise(() => {})",
            ("exception", True, "Error: the handler's promise is pending, and nothing is left that could settle it"),
        ),
        (
            "exports.handler = async () => 10n",
            (
                "exception",
                True,
                "Error: Unable to stringify response body: it is not JSON: Do not know how to serialize a BigInt",
            ),
        ),
        ("exports.handler = async () => '\\ud800'", ("invalid_output", False, None)),
        ("exports.handler = async () => 'x'.repeat(3000000)", ("output_too_large", False, None)),
        (
            "exports.handler = async () => process.exit(3)",
            ("crash", True, "the handler's process ended with exit code 3 before the handler returned"),
        ),
        ("throw new Error('import')", ("exception", True, "Error: import")),
        ("exports.other = 1", ("start", False, "app.js exports no function handler")),
    ],
)
def test_a_node_handler_fails_in_many_ways(tmp_path: Path, body: str, error: tuple[str, bool, str | None]) -> None:
    found = run(js(tmp_path, body)).error
    assert found[: 3 if error[2] else 2] == error[: 3 if error[2] else 2]


@node
def test_a_node_worker_is_kept_and_logs_completely(tmp_path: Path) -> None:
    body = """
let count = 0;
exports.handler = async (event) => {
  for (let i = 0; i < 20000; i++) console.log(i);
  console.error("err");
  require("fs").writeFileSync(process.env.TMPDIR + "/" + count, "");
  return [++count, require("fs").readdirSync(process.env.TMPDIR).length, event.length];
};"""
    job = js(tmp_path, body, content=b'"' + b"x" * 640_000 + b'"')

    async def work(start: Start) -> None:
        for count in (1, 2, 3):
            attempt = await start(job).end()
            assert attempt.output == [count, 1, 640_000]
            assert attempt.log("stdout").split() == [str(i) for i in range(20000)]
            assert attempt.log("stderr") == "err\n"

    on_runners(work)


def test_a_node_handler_without_node_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    kind, retryable, message = run(js(tmp_path, "")).error
    assert (kind, retryable) == ("start", False)
    assert "found no program 'node' on PATH" in message
