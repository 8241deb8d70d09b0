"""Steps that are Lambda handlers, in Python and Node: their input, their context, and their process."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from tests.behaviour.words import Json, Platform, Refused, function

needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
Files = dict[str, str | bytes]
Says = str | dict[str, str]  # an error message; by platform, if Lambda's runtimes have their own


def handler_function(handler: str = "app.handler", **fields: Any) -> Json:
    """A function with one step that is a handler."""
    runtime = {"type": "lambda", "handler": handler, **fields.pop("runtime", {})}
    return function({"a": {"runtime": runtime, **fields}})


def run_it(platform: Platform, **event: Any) -> Json:
    """Sends an event, and returns the step of the run when it has ended."""
    (run,) = platform.runs(platform.send(**event))
    return dict(run["steps"]["a"])


def message_of(step: Json) -> str:
    assert step["status"] == "failed"
    return str(step["error"]["message"])


def expected_message(platform: Platform, expected: Says) -> str:
    return expected if isinstance(expected, str) else expected[platform.name]


def python(body: str, before: str = "") -> Files:
    return {"steps/app.py": f"{before}\ndef handler(event, context):\n    {body}\n"}


def node(code: str, name: str = "app.js") -> Files:
    return {"steps/app.py": "", f"steps/{name}": code}


# --- kinds of handlers ---------------------------------------------------------------------------------------------

NODE_FORMS = {
    "callback": "exports.handler = (event, context, callback) => { setTimeout(() => callback(null, {n: 1}), 5) }",
    "promise": "exports.handler = (event) => Promise.resolve({n: 1})",
    "async": "exports.handler = async (event) => { await new Promise((r) => setTimeout(r, 5)); return {n: 1} }",
    "done": "exports.handler = (event, context) => context.succeed({n: 1})",
}


@needs_node
@pytest.mark.parametrize("form", list(NODE_FORMS))
def test_a_node_handler_can_return_by_callback_promise_or_async(platform: Platform, form: str) -> None:
    platform.deploy(handler_function("index.handler"), node(NODE_FORMS[form], "index.js"))
    assert run_it(platform)["output"] == {"n": 1}


@needs_node
def test_a_node_handler_can_be_an_es_module(platform: Platform) -> None:
    code = "import os from 'node:os'\nexport const handler = async (event) => event.event.data\n"
    platform.deploy(handler_function("index.handler"), node(code, "index.mjs"))
    assert run_it(platform, data={"n": "ü"})["output"] == {"n": "ü"}


@pytest.mark.parametrize("handler", ["sub/app.handler", "sub.app.handler"])
def test_a_python_handler_can_be_in_a_folder(platform: Platform, handler: str) -> None:
    files: Files = {"steps/sub/__init__.py": "", "steps/sub/app.py": "def handler(event, context):\n    return 1\n"}
    platform.deploy(handler_function(handler), files)
    assert run_it(platform)["output"] == 1


def test_a_handler_can_import_files_beside_it(platform: Platform) -> None:
    files = {**python("return neighbour.n", "import neighbour"), "steps/neighbour.py": "n = 1"}
    platform.deploy(handler_function(), files)
    assert run_it(platform)["output"] == 1


def test_files_beside_a_handler_can_have_names_of_standard_modules(platform: Platform) -> None:
    names = ["worker", "types", "json", "struct"]
    if platform.name == "local":
        names.append("queue")  # Lambda's Python runtime imports it after the code is in the path
    platform.deploy(
        handler_function(), {**python("return 1"), **{f"steps/{name}.py": "raise ValueError" for name in names}}
    )
    assert run_it(platform)["output"] == 1


# --- context -------------------------------------------------------------------------------------------------------

PYTHON_CONTEXT = """return {
        "remaining": context.get_remaining_time_in_millis(), "request": context.aws_request_id,
        "name": context.function_name, "memory": int(context.memory_limit_in_mb),
        "arn": context.invoked_function_arn, "version": context.function_version, "cwd": sorted(os.listdir()),
    }"""
NODE_CONTEXT = """exports.handler = async (event, context) => ({
  remaining: context.getRemainingTimeInMillis(), request: context.awsRequestId,
  name: context.functionName, memory: Number(context.memoryLimitInMB),
  arn: context.invokedFunctionArn, version: context.functionVersion, cwd: require("fs").readdirSync(".").sort(),
})"""


@pytest.mark.parametrize(
    "files",
    [
        {**python(PYTHON_CONTEXT, "import os"), "steps/app.js": None},
        pytest.param({"steps/app.py": None, "steps/app.js": NODE_CONTEXT}, marks=needs_node),
    ],
)
def test_a_handler_gets_a_lambda_context(platform: Platform, files: dict[str, str | None]) -> None:
    ((name, content),) = [(name, content) for name, content in files.items() if content is not None]
    # In a separate folder, so that the file for the other language is not there.
    step = {"path": "file://own", "runtime": {"type": "lambda", "handler": "app.handler", "memory": 512}}
    platform.deploy(function({"a": {**step, "timeout": "30s"}}), {name.replace("steps/", "own/"): content})
    seen = [run_it(platform)["output"] for _ in range(2)]
    assert 20_000 < seen[1]["remaining"] <= 30_000
    assert seen[0]["request"] != seen[1]["request"]
    assert len(seen[0]["request"]) == 36
    assert (seen[0]["memory"], seen[0]["version"]) == (512, "$LATEST")
    assert seen[0]["name"]
    assert seen[0]["arn"].startswith("arn:")
    assert seen[0]["cwd"] == [name.removeprefix("steps/")]


# --- warm processes ------------------------------------------------------------------------------------------------

COUNTS = python("global n; n += 1; return n", "n = 0")
NODE_COUNTS = "let n = 0\nexports.handler = async () => ++n\n"


@pytest.mark.parametrize(
    ("handler", "files", "other"),
    [
        ("app.handler", COUNTS, {"steps/app.py": "# changed\n" + str(COUNTS["steps/app.py"])}),
        pytest.param(
            "index.handler", node(NODE_COUNTS, "index.js"), node("// changed\n" + NODE_COUNTS, "index.js"),
            marks=needs_node,
        ),
    ],
)  # fmt: skip
def test_module_state_is_kept_between_runs_and_is_not_shared_with_other_code(
    platform: Platform, handler: str, files: Files, other: Files
) -> None:
    platform.deploy(handler_function(handler), files)
    assert [run_it(platform)["output"] for _ in range(3)] == [1, 2, 3]
    assert platform.deploy(handler_function(handler), other) == 2
    assert [run_it(platform)["output"] for _ in range(2)] == [1, 2]


def test_module_state_is_not_shared_between_functions_or_settings(platform: Platform) -> None:
    runtime = {"type": "lambda", "handler": "app.handler"}
    steps = {
        "a": {"runtime": runtime},
        "b": {"runtime": {**runtime, "memory": 256}, "after": ["a"]},
        "c": {"runtime": runtime, "env": {"LEVEL": "1"}, "after": ["b"]},
    }
    for function_id in ("f", "g"):
        platform.deploy(function(steps, id=function_id), COUNTS)
    for n in (1, 2):
        runs = platform.runs(platform.send())
        assert [run["steps"][step]["output"] for run in runs for step in "abc"] == [n] * 6


def test_a_changed_environment_reaches_a_warm_handler(platform: Platform) -> None:
    for value in ("one", "two"):
        platform.deploy(handler_function(env={"LEVEL": value}), python("return os.environ['LEVEL']", "import os"))
        assert run_it(platform)["output"] == value


def test_a_handler_has_an_empty_temporary_folder_each_time(platform: Platform) -> None:
    body = "found = os.listdir(os.environ['TMPDIR']); os.makedirs(os.environ['TMPDIR'] + '/x/y'); return found"
    platform.deploy(handler_function(), python(body, "import os"))
    assert [run_it(platform)["output"] for _ in range(2)] == [[], []]


def test_a_handler_sees_nothing_of_the_servers_environment(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_OF_THE_SERVER", "x")
    platform.deploy(handler_function(env={"LEVEL": "1"}), python("return dict(os.environ)", "import os"))
    env = run_it(platform)["output"]
    assert "SECRET_OF_THE_SERVER" not in env
    assert (env["LEVEL"], env["_HANDLER"]) == ("1", "app.handler")


# --- failures ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("raise ValueError('no such order')", "ValueError: no such order"),
        ("return undefined_name", "NameError"),
        ("raise KeyboardInterrupt('x')", {"local": "KeyboardInterrupt: x", "aws": "signal: interrupt"}),
        ("return handler(event, context)", "RecursionError"),
        ("import no_such_module", "ModuleNotFoundError: No module named 'no_such_module'"),
        (
            "raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})()",
            {"local": "Odd", "aws": "ended with exit code 1"},
        ),
        ("raise Exception('a\\x00b\\x1b[31mc')", "Exception: abc"),
        ("raise Exception('x' * 3_000_000)", "Exception: xxx"),
    ],
)
def test_an_exception_becomes_the_error_and_the_next_run_succeeds(
    platform: Platform, body: str, expected: Says
) -> None:
    platform.deploy(handler_function(), python(f"if event['event']['data'].get('ok'): return 1\n    {body}"))
    step = run_it(platform)
    assert expected_message(platform, expected) in message_of(step)
    assert len(message_of(step)) <= 2000
    assert run_it(platform, data={"ok": True})["output"] == 1


def test_an_exceptions_traceback_is_in_the_log(platform: Platform) -> None:
    platform.deploy(handler_function(), python("raise ValueError('no')"))
    log = run_it(platform)["attempts"][0]["logs"]
    assert "Traceback" in log
    assert 'app.py", line 3, in handler' in log


NEVER_SETTLED = {"local": "pending", "aws": "a Promise that was never settled"}
NO_JSON = {"local": "not JSON", "aws": "Unable to stringify response body"}
NOT_EXPORTED = {"local": "exports no function handler", "aws": "index.handler is undefined or not exported"}


@needs_node
@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("exports.handler = () => { throw new TypeError('no such order') }", "TypeError: no such order"),
        ("exports.handler = async () => { throw new TypeError('no such order') }", "TypeError: no such order"),
        ("exports.handler = (e, c, callback) => callback(new Error('no such order'))", "Error: no such order"),
        ("exports.handler = (e, c, callback) => callback('no such order')", "no such order"),
        ("exports.handler = (e, c) => { setTimeout(() => { throw new Error('late') }, 1) }", "Error: late"),
        ("exports.handler = async () => { await new Promise(() => {}) }", NEVER_SETTLED),
        ("exports.handler = async () => { const a = {}; a.a = a; return a }", NO_JSON),
        ("exports.handler = async () => 10n", NO_JSON),
        ("exports.handler = async () => { throw new Error('x'.repeat(3000000)) }", "Error: xxx"),
        ("throw new Error('at import')", "Error: at import"),
        ("exports.other = 1", NOT_EXPORTED),
        ("exports.handler = 1", {"local": "exports no function handler", "aws": "is not a function"}),
        ("exports.handler = (", "SyntaxError"),
    ],
)
def test_a_node_handlers_exception_becomes_the_error(platform: Platform, code: str, expected: Says) -> None:
    platform.deploy(handler_function("index.handler"), node(code, "index.js"))
    assert expected_message(platform, expected) in message_of(run_it(platform))


@needs_node
def test_a_promise_that_never_settles_is_a_failure(platform: Platform) -> None:
    """For a function that is not async, Lambda then returns null; for an async one, see above."""
    platform.deploy(
        handler_function("index.handler"), node("exports.handler = () => new Promise(() => {})", "index.js")
    )
    step = run_it(platform)
    if platform.name == "aws":
        assert (step["status"], step["output"]) == ("completed", None)
    else:
        assert "pending" in message_of(step)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"steps/app.py": "raise ValueError('at import')"}, "ValueError: at import"),
        ({"steps/app.py": "def handler(:"}, "SyntaxError"),
        ({"steps/app.py": "import sys; sys.exit(3)"}, "exit code 3"),
        ({"steps/app.py": "handler = 7"}, {"local": "no function handler", "aws": "'int' object is not callable"}),
        ({"steps/app.py": "x = 7"}, {"local": "no function handler", "aws": "'handler' missing on module 'app'"}),
    ],
)
def test_a_module_that_cannot_be_imported_fails_the_step_with_the_reason(
    platform: Platform, files: Files, expected: Says
) -> None:
    platform.deploy(handler_function(), files)
    assert expected_message(platform, expected) in message_of(run_it(platform))


def test_a_handler_whose_module_is_missing_is_refused(platform: Platform) -> None:
    with pytest.raises(Refused, match="no module for the handler"):
        platform.deploy(handler_function("other.handler"))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ("os._exit(3)", "exit code 3"),
        ("os._exit(0)", {"local": "exit code 0", "aws": "exited without providing a reason"}),
        ("os.kill(os.getpid(), 9)", "SIGKILL"),
        ("sys.exit(1)", "exit code 1"),
    ],
)
def test_a_process_that_dies_is_a_failure_and_is_replaced(platform: Platform, body: str, expected: Says) -> None:
    ok = "if event['event']['data'].get('ok'): return 1"
    platform.deploy(handler_function(), python(f"{ok}\n    {body}", "import os, sys"))
    assert run_it(platform, data={"ok": True})["output"] == 1
    assert expected_message(platform, expected) in message_of(run_it(platform))
    assert run_it(platform, data={"ok": True})["output"] == 1


def test_a_process_that_closes_its_runtimes_connections_fails_and_is_replaced(platform: Platform) -> None:
    """On AWS the handler can still return. The next attempt fails or succeeds, depending on timing: its process may be
    dead, or may have a new connection. The attempt after that always succeeds."""
    body = "if event['event']['data'].get('ok'): return 1\n    os.closerange(3, 65536); return 1"
    platform.deploy(handler_function(timeout={"local": "15m", "aws": "2s"}[platform.name]), python(body, "import os"))
    assert run_it(platform, data={"ok": True})["output"] == 1
    if platform.name == "aws":
        assert run_it(platform)["output"] == 1
        after = run_it(platform, data={"ok": True})
        assert (after["output"] == 1) != (after["error"] is not None and after["error"]["kind"] == "timeout")
    else:
        assert message_of(run_it(platform))
    assert run_it(platform, data={"ok": True})["output"] == 1


@pytest.mark.parametrize("body", ["time.sleep(600)", "signal.signal(signal.SIGTERM, lambda *a: 0); time.sleep(600)"])
def test_a_handler_that_takes_too_long_is_killed_and_replaced(platform: Platform, body: str) -> None:
    ok = "if event['event']['data'].get('ok'): return 1"
    platform.deploy(handler_function(timeout="1s"), python(f"{ok}\n    {body}", "import signal, time"))
    assert run_it(platform)["error"]["kind"] == "timeout"
    assert run_it(platform, data={"ok": True})["output"] == 1


# --- logs ----------------------------------------------------------------------------------------------------------


def test_stdout_of_a_handler_is_log_and_not_output(platform: Platform) -> None:
    body = "print('{\"printed\": 1}'); print('to stderr', file=sys.stderr); os.system('echo child'); return {'n': 1}"
    platform.deploy(handler_function(), python(body, "import os, sys\nprint('imported')"))
    first, second = run_it(platform), run_it(platform)
    assert first["output"] == second["output"] == {"n": 1}
    assert sorted(first["attempts"][0]["logs"].splitlines()) == ["child", "imported", "to stderr", '{"printed": 1}']
    assert sorted(second["attempts"][0]["logs"].splitlines()) == ["child", "to stderr", '{"printed": 1}']


@needs_node
def test_console_output_of_a_node_handler_is_log(platform: Platform) -> None:
    code = "exports.handler = async () => { console.log('out'); console.error('err'); return null }"
    platform.deploy(handler_function("index.handler"), node(code, "index.js"))
    step = run_it(platform)
    assert step["output"] is None
    lines = step["attempts"][0]["logs"].splitlines()
    assert sorted(line.split("\t")[-1] for line in lines) == ["err", "out"]  # Lambda's runtime adds columns before it
