"""The examples of reference/http-api.md work.

Each one runs as it is printed, against a real server. Its answer has the status and the shape that the page documents.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from tests.documented import Prepared, Scene, documented, prepare
from tests.pages import ADDRESS, blocks

PAGE = (Path(__file__).parents[1] / "docs" / "reference" / "http-api.md").read_text("utf-8")
OPERATION = re.compile(r"^### `(?P<name>[A-Z]+ /[^`]*)`\n(?P<text>.*?)(?=^##)", re.MULTILINE | re.DOTALL)
ANSWER = re.compile(r"^\*\*Answer\*\* (?P<status>\d+): \[(?P<shape>\w+)\]", re.MULTILINE)
OPERATIONS = {found["name"]: found["text"] for found in OPERATION.finditer(PAGE)}

pytestmark = pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")


def token(scene: Scene) -> dict[str, str]:
    return {"TOKEN": scene.waiting_run()["steps"]["confirm"]["approval"]["approve_url"].rpartition("/")[2]}


def waiting_run(scene: Scene) -> dict[str, str]:
    return {"RUN_ID": scene.waiting_run()["id"]}


# What must exist before an example, by the beginning of the operation's name: the longest beginning counts.
BEFORE: Prepared = {
    "DELETE /v1/runs/{id}": waiting_run,
    "POST /v1/functions/{id}/promote": Scene.canary,
    "POST /v1/functions/{id}/resume": Scene.pause,
    "POST /v1/approvals/{token}": token,
    "POST /webhooks/{name}": Scene.webhook,
    **{f"{method} /v1/sources/": Scene.source for method in ("GET", "PUT", "POST", "DELETE")},
    **{f"{method} /v1/webhooks/": Scene.webhook for method in ("GET", "PUT", "DELETE")},
    "POST /v1/workers/": Scene.worker,
    **{f"{method} /v1/types/": Scene.type for method in ("GET", "PATCH", "DELETE")},
    **{f"{method} /v1/users": Scene.user for method in ("GET", "DELETE")},
}


@pytest.fixture(scope="module")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with documented(tmp_path_factory.mktemp("http")) as scene:
        yield scene


@pytest.fixture(scope="module")
def document(scene: Scene) -> Any:
    return scene.call("GET", "/openapi.json")


def test_every_operation_has_one_example() -> None:
    counts = {name: len(list(blocks(text))) for name, text in OPERATIONS.items()}
    assert counts == dict.fromkeys(OPERATIONS, 1)
    assert len(OPERATIONS) == len(list(blocks(PAGE)))


# What an example deletes is there again for the next one; a deleted user is not, so this example is the last.
@pytest.mark.parametrize("name", sorted(OPERATIONS, key=lambda name: name == "DELETE /v1/users"))
def test_an_example_gets_the_documented_answer(name: str, scene: Scene, document: Any, tmp_path: Path) -> None:
    (block,), promised = blocks(OPERATIONS[name]), ANSWER.search(OPERATIONS[name])
    assert promised is not None
    run_id = scene.call("GET", "/v1/runs", function="welcome", status="completed")["data"][0]["id"]
    variables = {"STEPWELL_KEY": scene.key, "RUN_ID": run_id, **prepare(scene, name, BEFORE)}
    variables |= {"CURL_HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    (tmp_path / ".curlrc").write_text('silent\nshow-error\nwrite-out = "\\n%{http_code}"\n')
    command = block.text.replace(f"http://{ADDRESS}", scene.url)
    done = subprocess.run(
        ["sh", "-euc", command], env=variables, cwd=scene.folder, capture_output=True, text=True, check=False
    )
    body, _, status = done.stdout.rpartition("\n")
    assert (status, done.stderr) == (promised["status"], ""), body
    schema = {"$ref": f"#/components/schemas/{promised['shape']}", "components": document["components"]}
    Draft202012Validator(schema).validate(json.loads(body))
