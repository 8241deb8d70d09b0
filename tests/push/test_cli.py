"""The commands for environments, as users and scripts run them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import boto3
import pytest
from botocore.exceptions import NoCredentialsError
from typer.testing import CliRunner

from stepwell.api.access import KeyScope
from stepwell.aws.api.keys import KeyStore
from stepwell.aws.functions.registry import Registry
from stepwell.aws.resources import Resources, parameter
from stepwell.aws.signing.signing_keys import read_keys
from stepwell.cli.main import app
from tests.push.conftest import Aws, refusal

Write = Callable[..., Path]


def run(*arguments: object, input: str | None = None, **env: str) -> Any:
    result = CliRunner().invoke(app, [str(a) for a in arguments], input=input, env={"COLUMNS": "200", **env})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result


def ok(*arguments: object, **options: Any) -> str:
    result = run(*arguments, **options)
    assert result.exit_code == 0, result.output
    return str(result.stdout)


def data(*arguments: object, **options: Any) -> Any:
    return json.loads(ok(*arguments, "--json", **options))


def refused(*arguments: object, code: int = 1, **options: Any) -> str:
    result = run(*arguments, **options)
    assert (result.exit_code, result.stdout) == (code, ""), result.output
    return str(result.stderr)


# --- push ------------------------------------------------------------------------------------------------------------


def test_push_prints_the_live_versions(aws: Aws, write: Write) -> None:
    folder = write()
    assert "live f v1" in ok("push", folder, "--env", "dev", "-m", "first")
    assert "nothing has changed" in ok("push", folder, STEPWELL_ENV="dev")
    answer = data("push", folder, "--env", "dev")
    nothing = {"actions": [], "notes": [], "types": [], "webhooks": []}
    assert answer == {"env": "dev", "dry_run": False, "functions": {"f": 1}, **nothing}


def test_a_dry_run_prints_the_actions_of_a_push(aws: Aws, write: Write) -> None:
    folder = write()
    text = ok("push", folder, "--env", "dev", "--dry-run")
    assert "would create role stepwell-dev-step-f" in text
    answer = data("push", folder, "--env", "dev", "--dry-run")
    assert [(a["action"], a["kind"]) for a in answer["actions"]] == [
        ("create", "role"),
        ("create", "log group"),
        ("upload", "code"),
        ("create", "lambda"),
        ("create", "function"),
    ]
    assert answer["functions"] == {"f": None}
    assert not aws.writes


def test_a_push_registers_webhooks(aws: Aws, write: Write) -> None:
    folder = write()
    file = folder / "webhooks" / "github.json"
    file.parent.mkdir()
    file.write_text('{"event": "go", "verify": {"type": "github", "secret": "S"}}')
    assert "would register webhook github" in ok("push", folder, "--env", "dev", "--dry-run")
    assert "created webhook github" in ok("push", folder, "--env", "dev")
    assert data("push", folder, "--env", "dev")["webhooks"] == [{"name": "github", "change": "unchanged"}]
    file.write_text('{"event": "go", "id": "body."}')
    assert "github.json:1:17: id: `.` is not allowed here" in refused("push", folder, "--env", "dev")


def test_a_push_registers_types_and_refuses_breaking_changes(aws: Aws, write: Write) -> None:
    folder = write()
    schema = {"type": "object", "properties": {"amount": {"type": "number"}}}
    file = folder / "schemas" / "go.1.schema.json"
    file.parent.mkdir()
    file.write_text(json.dumps(schema))
    assert "would register type go 1" in ok("push", folder, "--env", "dev", "--dry-run")
    assert "created go 1" in ok("push", folder, "--env", "dev")
    assert "go 1" not in ok("push", folder, "--env", "dev")
    file.write_text(json.dumps({"type": "object", "properties": {"amount": {"type": "string"}}}))
    for options in ((), ("--dry-run",)):
        assert "`amount` was number, is string now" in refused("push", folder, "--env", "dev", *options)
    file.rename(folder / "schemas" / "go.2.schema.json")
    (folder / "main.py").write_text("print(2)")
    before = aws.writes
    for options in ((), ("--dry-run",)):
        text = refused("push", folder, "--env", "dev", *options)
        assert "go.2.schema.json:1:46: `amount` was number, is string now" in text
        assert "go 2 breaks 1" in text
        assert "--breaking" in text
    assert aws.writes == before
    text = ok("push", folder, "--env", "dev", "--breaking")
    assert "breaks 1 /properties/amount/type" in text
    assert "affects f /triggers/0: starts on go" in text
    assert "live f v2" in text


def test_a_push_refuses_expressions_that_do_not_fit_the_types_of_the_environment(aws: Aws, write: Write) -> None:
    folder = write()
    file = folder / "schemas" / "go.1.schema.json"
    file.parent.mkdir()
    file.write_text('{"type": "object", "properties": {"total": {"type": "number"}}}')
    ok("push", folder, "--env", "dev")
    file.unlink()
    wrong = {"event": "go", "expression": "data.totl > 1.0"}
    folder = write(triggers=[wrong])
    text = refused("push", folder, "--env", "dev")
    assert "did you mean `total`?" in text
    assert "stepwell.json:1:" in text
    assert "--no-check" in text
    assert "live f v2" in ok("push", folder, "--env", "dev", "--no-check")


def test_no_value_of_an_env_file_is_printed(aws: Aws, write: Write) -> None:
    folder = write()
    (folder / ".env").write_text("TOKEN=sesame\n")
    for options in ((), ("--json",), ("--dry-run",), ("--dry-run", "--json")):
        assert "sesame" not in run("push", folder, "--env", "dev", *options).output


def test_steps_that_cannot_run_on_aws_are_refused_with_file_and_line(aws: Aws, write: Write) -> None:
    steps = {
        "a": {"path": "file://.", "timeout": "1h"},
        "b": {"path": "file://.", "runtime": {"type": "lambda", "command": ["ruby", "x"]}},
        "c": {"runtime": {"type": "http", "url": "https://example.com"}, "timeout": "16m"},
        "d": {"runtime": {"type": "docker", "image": "busybox"}},
    }
    text = refused("push", write(steps=steps), "--env", "dev")
    for step, cure in (("a", "use docker"), ("b", "no program 'ruby'"), ("c", "use docker"), ("d", "no containers")):
        assert any("stepwell.json:1:" in line and f"`{step}`" in line and cure in line for line in text.splitlines())
    assert not aws.writes


def test_nothing_is_pushed_if_one_definition_is_wrong(aws: Aws, write: Write, tmp_path: Path) -> None:
    write()
    write("wrong", stepz={})
    assert "stepz" in refused("push", tmp_path, "--env", "dev")
    assert not aws.calls


def test_a_missing_environment_is_reported_with_the_command_that_creates_it(aws: Aws, write: Write) -> None:
    text = refused("push", write(), "--env", "prod")
    assert "no environment 'prod' in eu-central-1" in text
    assert "cdk deploy" in text


def test_the_region_is_taken_from_the_variable_that_messages_name(
    aws: Aws, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_REGION", "ap-south-1")
    assert "in ap-south-1" in refused("push", write(), "--env", "dev")


def test_without_an_environment_push_goes_to_a_server(aws: Aws, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STEPWELL_URL", "http://127.0.0.1:1")
    assert "no server answers at http://127.0.0.1:1" in refused("push", write())
    assert "a-z" in refused("push", write(), "--env", "../prod", code=2)


@pytest.mark.parametrize(
    "options", [("--guard",), ("--sticky", "user.id"), ("--canary", "0%"), ("--canary", "100%"), ("--canary", "ten")]
)
def test_an_invalid_canary_is_refused_before_any_request(aws: Aws, write: Write, options: tuple[str, ...]) -> None:
    assert "10%" in refused("push", write(), "--env", "dev", *options, code=2)


def test_invalid_names_of_environments_are_refused(aws: Aws, write: Write) -> None:
    assert "a-z" in refused("push", write(), "--env", "../prod", code=2)


@pytest.mark.parametrize(
    ("operation", "error", "words"),
    [
        ("GetParameter", NoCredentialsError(), "aws configure sso"),
        ("GetParameter", refusal("ExpiredTokenException", "expired", "GetParameter"), "aws sso login"),
        (
            "CreateRole",
            refusal(
                "AccessDenied",
                "User: arn:aws:iam::1:user/u is not authorized to perform: iam:CreateRole"
                " on resource: arn:aws:iam::1:role/r because no identity-based policy allows it",
                "CreateRole",
            ),
            "AWS denies iam:CreateRole on arn:aws:iam::1:role/r",
        ),
        ("GetRole", refusal("Throttling", "Rate exceeded", "GetRole"), "try again in a minute"),
        ("GetRole", refusal("Weird", "Something else", "GetRole"), "GetRole: Something else"),
    ],
)
def test_errors_from_aws_are_explained(aws: Aws, write: Write, operation: str, error: Exception, words: str) -> None:
    aws.fail_once(operation, error)
    assert words in refused("push", write(), "--env", "dev")


def test_without_boto3_the_command_says_what_to_install(write: Write) -> None:
    script = (
        "import sys; sys.modules['boto3'] = sys.modules['botocore'] = None\n"
        f"sys.argv = ['stepwell', 'push', {str(write())!r}, '--env', 'dev']\n"
        "from stepwell.cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "pip install 'stepwell[aws]'" in done.stderr


def test_the_command_starts_without_boto3() -> None:
    names = "any(name.startswith(('boto', 'stepwell.aws')) for name in sys.modules)"
    script = f"import sys, stepwell.cli.main; sys.exit({names})"
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- secrets ---------------------------------------------------------------------------------------------------------


def test_a_secret_is_set_listed_and_removed_and_never_shown(aws: Aws) -> None:
    ok("secrets", "set", "KEY", "--env", "dev", input="sesame\n")
    ok("secrets", "set", "OTHER", "--env", "dev", "--value", "open")
    (key, other) = data("secrets", "list", "--env", "dev")
    assert (key["name"], key["version"], other["name"]) == ("KEY", 1, "OTHER")
    assert "sesame" not in ok("secrets", "list", "--env", "dev")
    stored = aws.session.client("ssm").get_parameter(Name="/stepwell/dev/secrets/KEY", WithDecryption=True)["Parameter"]
    assert (stored["Type"], stored["Value"]) == ("SecureString", "sesame")
    assert "removed" in ok("secrets", "remove", "KEY", "--env", "dev")
    assert [one["name"] for one in data("secrets", "list", "--env", "dev")] == ["OTHER"]
    assert "secrets list" in refused("secrets", "remove", "KEY", "--env", "dev")


def test_a_new_value_of_a_secret_restarts_the_lambdas_that_use_it(aws: Aws, write: Write) -> None:
    ok("secrets", "set", "KEY", "--env", "dev", input="one")
    steps = {"a": {"path": "file://.", "secrets": ["KEY"]}, "b": {"path": "file://."}}
    folder = write(steps=steps)
    ok("push", folder, "--env", "dev")
    client = aws.session.client("lambda")
    before = {function["FunctionName"]: function["Environment"] for function in client.list_functions()["Functions"]}
    (renewed,) = data("secrets", "set", "KEY", "--env", "dev", input="two")["renewed"]
    after = {function["FunctionName"]: function["Environment"] for function in client.list_functions()["Functions"]}
    assert [name for name in after if after[name] != before[name]] == [renewed]
    assert "nothing has changed" in ok("push", folder, "--env", "dev")


def test_empty_values_and_invalid_names_of_secrets_are_refused(aws: Aws) -> None:
    assert "empty" in refused("secrets", "set", "KEY", "--env", "dev", input="\n", code=2)
    assert "letters" in refused("secrets", "set", "../KEY", "--env", "dev", input="x", code=2)


# --- keys, prune -----------------------------------------------------------------------------------------------------


def test_keys_of_an_environment_are_in_its_table(aws: Aws, tmp_path: Path) -> None:
    made = data("keys", "create", "--env", "dev", "--scope", "manage", "--name", "ci")
    assert KeyStore(aws.resources).scope_of(made["key"]) is KeyScope.MANAGE
    assert [key["id"] for key in data("keys", "list", "--env", "dev")] == [made["id"]]
    ok("keys", "revoke", made["id"], STEPWELL_ENV="dev")
    assert KeyStore(aws.resources).scope_of(made["key"]) is None
    assert data("keys", "create", "--db", tmp_path / "db", STEPWELL_ENV="dev")["scope"] == "send"
    assert len(data("keys", "list", "--env", "dev")) == 1  # --db overrides the environment


def test_a_retired_function_is_not_live_until_it_is_pushed_again(aws: Aws, write: Write) -> None:
    folder = write()
    ok("push", folder, "--env", "dev")
    assert ok("functions", "retire", "f", "--env", "dev") == "retired f\n"
    assert Registry(aws.resources).catalog().live == {}
    assert "f is not live in dev" in refused("functions", "retire", "f", "--env", "dev")
    assert "live f v1" in ok("push", folder, "--env", "dev")


def test_all_functions_are_retired_or_none(aws: Aws, write: Write) -> None:
    ok("push", write(), "--env", "dev")
    assert "nobody is not live in dev" in refused("functions", "retire", "f", "nobody", "--env", "dev", "--json")
    assert Registry(aws.resources).catalog().live.keys() == {"f"}
    assert data("functions", "retire", "f", "--env", "dev") == {"env": "dev", "functions": ["f"]}


def test_prune_prints_what_it_removes(aws: Aws, write: Write) -> None:
    ok("push", write(), "--env", "dev")
    assert "nothing to remove" in ok("functions", "prune", "--env", "dev")
    assert data("functions", "prune", "--env", "dev", "--dry-run") == {"env": "dev", "dry_run": True, "actions": []}


def test_permissions_to_grant_by_hand_are_printed_before_a_push_fails(aws: Aws, write: Write) -> None:
    role = aws.session.client("iam").create_role(RoleName="theirs", AssumeRolePolicyDocument="{}")["Role"]["Arn"]
    arn = aws.session.client("lambda").create_function(
        FunctionName="crm", Runtime="python3.13", Role=role, Handler="a.b", Code={"ZipFile": b"x"}
    )["FunctionArn"]
    folder = write(steps={"a": {"runtime": {"type": "lambda", "arn": arn}}})
    message = "The function's execution role does not have permissions to call SendMessage on the queue"
    operation = "PutFunctionEventInvokeConfig"
    aws.fail_once(operation, refusal("InvalidParameterValueException", message, operation))
    text = refused("push", folder, "--env", "dev")
    assert f"{role} must be allowed sqs:SendMessage on {aws.resources.outcomes_queue_arn}" in text.replace("\n", " ")
    assert "does not have permissions" in text
    assert aws.slept == []  # no retries: the role does not belong to Stepwell
    ok("push", folder, "--env", "dev")
    assert "must be allowed" not in ok("push", folder, "--env", "dev")


# --- the API ---------------------------------------------------------------------------------------------------------


class _Api(BaseHTTPRequestHandler):
    """Answers every request with an empty list, and records the requests."""

    requests: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.requests.append((self.path, self.headers.get("authorization")))
        body = b'{"data": [], "next": null}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None: ...


@pytest.fixture
def requests(aws: Aws) -> Iterator[list[tuple[str, str | None]]]:
    """The requests to the environment's API, as (path, authorization)."""
    handler = type("Handler", (_Api,), {"requests": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = Thread(target=server.serve_forever, daemon=True)
    thread.start()
    fields = {**json.loads(aws.resources.to_json()), "api_url": f"http://127.0.0.1:{server.server_port}/"}
    text = Resources.from_json(json.dumps(fields)).to_json()
    aws.session.client("ssm").put_parameter(Name=parameter("dev"), Value=text, Type="String", Overwrite=True)
    yield handler.requests  # type: ignore[attr-defined]
    server.shutdown()
    thread.join(10)
    server.server_close()


@pytest.mark.parametrize(
    ("arguments", "env"),
    [
        (("runs", "--env", "dev"), {}),
        (("runs",), {"STEPWELL_ENV": "dev"}),
        (("runs", "--env", "dev"), {"STEPWELL_ENV": "other", "STEPWELL_URL": "http://127.0.0.1:1"}),
    ],
)
def test_commands_find_the_api_of_an_environment(
    requests: list[tuple[str, str | None]], arguments: tuple[str, ...], env: dict[str, str]
) -> None:
    assert data(*arguments, STEPWELL_KEY="sw_x", **env) == []
    assert requests == [("/v1/runs?limit=20", "Bearer sw_x")]


def test_the_environment_may_stand_before_or_after_the_subcommand(requests: list[tuple[str, str | None]]) -> None:
    data("functions", "show", "f", "--env", "dev")
    data("functions", "--env", "dev", "show", "f")
    assert requests == [("/v1/functions/f", None)] * 2


# --- signing keys ----------------------------------------------------------------------------------------------------


def test_signing_keys_are_made_rotated_and_dropped(aws: Aws) -> None:
    assert "create it with `stepwell signing-keys rotate --env dev`" in refused("signing-keys", "list", "--env", "dev")
    (first,) = data("signing-keys", "rotate", "--env", "dev")
    assert (first["signs"], first["retired_at"], first["counts_until"]) == (True, None, None)
    second, older = data("signing-keys", "rotate", STEPWELL_ENV="dev")
    assert (second["signs"], older["id"], older["signs"]) == (True, first["id"], False)
    assert older["retired_at"] < older["counts_until"]
    text = ok("signing-keys", "list", "--env", "dev")
    assert first["id"] in text
    assert read_keys(boto3.client("ssm"), "dev").current.secret.hex() not in text
    assert "is the current key" in refused("signing-keys", "drop", second["id"], "--yes", "--env", "dev")
    assert [item["id"] for item in data("signing-keys", "drop", first["id"], "-y", "--env", "dev")] == [second["id"]]


def test_a_rotation_prints_how_long_old_signatures_stay_valid(aws: Aws) -> None:
    ok("signing-keys", "rotate", "--env", "dev")
    assert "of older keys stay valid" in ok("signing-keys", "rotate", "--env", "dev")
    assert "All older keys are dropped" in ok("signing-keys", "rotate", "--drop-older", "--yes", "--env", "dev")
    assert len(data("signing-keys", "list", "--env", "dev")) == 1


@pytest.mark.parametrize("words", [("rotate", "--drop-older"), ("drop", "abc")])
def test_dropping_keys_asks_for_confirmation_and_describes_the_effect(aws: Aws, words: tuple[str, ...]) -> None:
    ok("signing-keys", "rotate", "--env", "dev")
    before = data("signing-keys", "list", "--env", "dev")
    result = run("signing-keys", *words, "--env", "dev", input="n\n")
    assert result.exit_code == 1
    assert "approval links" in result.stderr
    assert "started again" in result.stderr
    assert data("signing-keys", "list", "--env", "dev") == before
