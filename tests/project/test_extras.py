"""A step or source whose library is not installed: `validate` warns, and a server says why it does not run.

The commands run in processes in which the library cannot be imported.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from tests.servers import Json, api, cli, dev, eventually, serve, write_function
from tests.sources.project import write_source

# An empty module: the four bytes "\0asm" and the version.
WASM = base64.b64decode("AGFzbQEAAAABBAFgAAADAgEABQMBAAEHEwIGbWVtb3J5AgAGX3N0YXJ0AAAKBAECAAs=")
CELERY = {"type": "celery", "task": "shop.add", "broker": "redis://localhost"}
STEPS: dict[str, tuple[Json, str, str]] = {  # runtime, module, what to install
    "celery": (CELERY, "celery", "stepwell[celery]"),
    "celery by redis": (CELERY, "redis", "stepwell[celery]"),
    "celery by sqs": ({**CELERY, "broker": "sqs://"}, "boto3", "celery[sqs]"),
    "wasm": ({"type": "wasm"}, "wasmtime", "stepwell[wasm]"),
}
SOURCES: dict[str, tuple[Json, str, str]] = {
    "celery": ({"broker": "redis://localhost"}, "celery", "stepwell[celery]"),
    "kafka": ({"brokers": ["localhost:1"], "topics": ["t"]}, "confluent_kafka", "stepwell[kafka]"),
    "pubsub": ({"project": "p", "subscription": "s"}, "google", "stepwell[pubsub]"),
    "rabbitmq": ({"url": "amqp://localhost:1", "queue": "q"}, "kombu", "stepwell[rabbitmq]"),
    "redis": ({"url": "redis://localhost:1", "stream": "s"}, "redis", "stepwell[redis]"),
    "sqs": ({"queue": "q"}, "boto3", "stepwell[aws]"),
}
HIDE = """
import sys
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {module!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Hidden())
"""


def without(module: str, folder: Path) -> dict[str, str]:
    """The variables of a process that cannot import a module."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(HIDE.format(module=module))
    return {"PYTHONPATH": str(folder)}


@pytest.fixture(params=STEPS)
def step(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, str], str]:
    """A project with a step that needs a library, variables that hide this, and what installs it."""
    runtime, module, install = STEPS[request.param]
    code = {"path": "file://code"} if runtime["type"] == "wasm" else {}
    write_function(tmp_path / "p" / "f", "f", a={**code, "runtime": runtime})
    if code:
        (tmp_path / "p/f/code").mkdir()
        (tmp_path / "p/f/code/main.wasm").write_bytes(WASM)
    return tmp_path / "p", without(module, tmp_path / "hidden"), install


@pytest.fixture(params=SOURCES)
def source(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, dict[str, str], str]:
    """A project with a source that needs a library, variables that hide this, and what installs it."""
    fields, module, install = SOURCES[request.param]
    write_function(tmp_path / "p" / "f", "f", "order/placed")
    event: Json = {"event": None} if request.param == "celery" else {}
    write_source(tmp_path / "p", "orders", type=request.param, **fields, **event)
    return tmp_path / "p", without(module, tmp_path / "hidden"), install


def validated(folder: Path, env: dict[str, str]) -> Any:
    done = cli("validate", str(folder), "--json", **env)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def test_validate_warns_of_a_step_whose_library_is_missing(step: tuple[Path, dict[str, str], str]) -> None:
    folder, env, install = step
    (warning,) = validated(folder, env)["warnings"]
    assert warning["pointer"] == "/steps/a/runtime"
    assert f"pip install '{install}'" in warning["message"]
    assert "\n" not in warning["message"]
    assert validated(folder, {})["warnings"] == [], "with the library"


def test_a_server_does_not_put_a_step_in_service_whose_library_is_missing(
    step: tuple[Path, dict[str, str], str], tmp_path: Path
) -> None:
    folder, env, install = step
    with serve(folder, tmp_path / "db", env=env) as server:
        line = server.line(lambda line: line["message"].startswith("not live: "))
        assert (line["level"], line["function"]) == ("error", "f")
        assert f"pip install '{install}'" in line["message"]
    done = cli("serve", str(folder), "--strict", "--port", "0", "--db", str(tmp_path / "strict"), **env)
    assert done.returncode == 1
    assert f"pip install '{install}'" in done.stderr


def test_validate_warns_of_a_source_whose_library_is_missing(source: tuple[Path, dict[str, str], str]) -> None:
    folder, env, install = source
    (warning,) = validated(folder, env)["warnings"]
    assert warning["pointer"] == "/type"
    assert f"pip install '{install}'" in warning["message"]
    assert validated(folder, {})["warnings"] == [], "with the library"


def test_a_server_reports_a_source_whose_library_is_missing(
    source: tuple[Path, dict[str, str], str], tmp_path: Path
) -> None:
    folder, env, install = source
    with dev(folder, tmp_path / "db", env=env) as server, api(server) as http:
        assert http.get("/healthz")["status"] == "degraded"
        failing = eventually(lambda: found if (found := http.get("/v1/sources/orders"))["error"] else None)
        assert f"pip install '{install}'" in failing["error"]
        fields = {**failing["definition"], "type": failing["type"]}
        refused = http.http.put("/v1/sources/pushed", json=fields)
        assert (refused.status_code, f"pip install '{install}'" in refused.json()["message"]) == (409, True)
    done = cli("serve", str(folder), "--strict", "--port", "0", "--db", str(tmp_path / "strict"), **env)
    assert done.returncode == 1
    assert f"pip install '{install}'" in done.stderr


def test_a_push_of_a_step_whose_library_is_missing_on_the_server_is_refused(tmp_path: Path) -> None:
    write_function(tmp_path / "old" / "f", "g")
    write_function(tmp_path / "new" / "f", "f", a={"runtime": CELERY})
    with dev(tmp_path / "old", tmp_path / "db", env=without("celery", tmp_path / "hidden")) as server:
        done = cli("push", str(tmp_path / "new"), STEPWELL_URL=server.url)
        assert done.returncode == 1
        assert "pip install 'stepwell[celery]'" in done.stderr
        with api(server) as http:
            assert [item["id"] for item in http.get("/v1/functions")["data"]] == ["g"]
