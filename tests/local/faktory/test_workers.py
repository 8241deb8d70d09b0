"""Workers and clients of Faktory, unmodified, in Node (faktory-worker) and Python (pyfaktory)."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.local.faktory.workers import EXAMPLE, GUIDE, node, node_modules, python, running
from tests.servers import Api, Json, Server, api, eventually, new_key, serving, write_function

pytest.importorskip("pyfaktory", reason="pip install pyfaktory")

PASSWORD = "hush"


def job_step(jobtype: str, queue: str = "default", **fields: object) -> Json:
    return {"runtime": {"type": "faktory", "jobtype": jobtype, "queue": queue}, **fields}


@pytest.fixture(scope="module")
def modules(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return node_modules(tmp_path_factory.mktemp("node"))


@dataclass
class Place:
    """A server with a Faktory port. `url`: with the password."""

    folder: Path
    server: Server
    api: Api
    url: str

    def script(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.write_text(text)
        return file

    def pushed(self, jobtype: str, count: int) -> list[Json]:
        """The events of this type, when there are so many."""
        return eventually(
            lambda: (
                len(found := [e for e in self.api.get("/v1/events")["data"] if e["name"] == f"faktory/{jobtype}"])
                == count
                and found
            )
        )


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("faktory")
    functions, db = folder / "functions", folder / "db"
    write_function(functions / "node", "node", "node/go", a=job_step("Double", "node"))
    retries = {"attempts": 1, "backoff": {"initial": "10ms"}}
    write_function(functions / "fails", "fails", "fails/go", a=job_step("Fails", "node", retries=retries))
    options = ("--port", "0", "--db", db, "--faktory", "127.0.0.1:0")
    env = {"STEPWELL_FAKTORY_PASSWORD": PASSWORD}
    with serving("serve", functions, EXAMPLE, *options, env=env) as server, api(server, new_key(db)) as client:
        line = server.line(lambda line: line.get("message") == "listening")
        yield Place(folder, server, client, line["faktory"].replace("//", f"//:{PASSWORD}@"))


NODE_WORKER = """
const faktory = require("faktory-worker");
faktory.register("Double", (input) => async ({ job }) => {
  const result = { doubled: 2 * input.event.data.n };
  await fetch(job.custom.stepwell_result_url, { method: "POST", body: JSON.stringify(result) });
});
faktory.register("Fails", async (input) => { throw new Error("attempt " + input.ctx.attempt); });
faktory.work({ queues: ["node"], concurrency: 5 }).then(() => console.log("works"));
"""


def test_a_worker_in_node_runs_steps_and_sends_results(place: Place, modules: Path) -> None:
    script = place.script("double.js", NODE_WORKER)
    with running(node(script, place.url, modules), {}) as worker:
        worker.wait_for("works")
        events = [place.api.send("node/go", data={"n": n}) for n in range(20)]
        outputs = [place.api.ended(event)["output"]["a"]["doubled"] for event in events]
        assert outputs == [2 * n for n in range(20)]
        failed = place.api.ended(place.api.send("fails/go"))
        attempts = failed["steps"]["a"]["attempts"]
        assert [attempt["error"]["message"] for attempt in attempts] == ["attempt 1", "attempt 2"]
        assert "double.js" in attempts[0]["logs"]


def test_the_example_runs_with_a_worker_in_node_and_one_in_python(place: Place, modules: Path) -> None:
    with (
        running(node(EXAMPLE / "worker.js", place.url, modules), {}),
        running(python(EXAMPLE / "worker.py", place.url), {}) as crm,
    ):
        ended = place.api.ended(place.api.send("user/welcomed", data={"email": "ada@example.com"}))
        assert ended["output"] == {"crm": None}
        assert ended["steps"]["mail"]["output"] == {"to": "ada@example.com"}
        crm.wait_for("adding ada@example.com")


@pytest.mark.parametrize(
    ("name", "language", "begins"),
    [("stepwell.yaml", "yaml", "id:"), ("worker.js", "js", "const"), ("worker.py", "python", "from")],
)
def test_the_guide_shows_the_example(name: str, language: str, begins: str) -> None:
    text = (EXAMPLE / name).read_text("utf-8")
    shown = text[text.index(f"\n{begins}") + 1 :]
    assert f"```{language}\n{shown}```\n" in GUIDE.read_text("utf-8")


NODE_CLIENT = """
const faktory = require("faktory-worker");
(async () => {
  const client = await faktory.connect();
  const job = client.job("FromNode", 1, { a: "\u00fc" });
  job.queue = "mails";
  await job.push();
  const wrong = { ...client.job("FromNode", 3).toJSON(), args: {} };
  const refused = await client.pushBulk([client.job("FromNode", 2), wrong]);
  console.log(Object.keys(refused).length, (await client.info()).server.description);
  await client.close();
})();
"""
PYTHON_CLIENT = """
from pyfaktory import Client, Job, Producer
with Client(role="producer") as client:
    producer = Producer(client=client)
    job = Job(jobtype="FromPython", args=[1, {"a": "\u00fc"}], queue="mails", custom={"lang": "en"})
    producer.push(job)
    producer.push(job)
    print(producer.push_bulk([Job(jobtype="FromPython", args=[n]) for n in range(2)]))
    print(client.info()["server"]["description"])
"""


def test_a_client_in_node_pushes_events(place: Place, modules: Path) -> None:
    command = node(place.script("push.js", NODE_CLIENT), place.url, modules)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "1 Stepwell\n", done.stderr
    events = place.pushed("FromNode", 2)
    assert sorted((event["data"]["args"] for event in events), key=str) == [[1, {"a": "ü"}], [2]]
    assert {event["data"]["queue"] for event in events} == {"mails", "default"}


def test_a_client_in_python_pushes_events(place: Place) -> None:
    command = python(place.script("push.py", PYTHON_CLIENT), place.url)
    done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    assert done.stdout == "{}\nStepwell\n", done.stderr
    events = place.pushed("FromPython", 3)
    assert {event["data"]["custom"]["lang"] for event in events if "custom" in event["data"]} == {"en"}


def test_a_client_with_a_wrong_password_is_told_so(place: Place) -> None:
    script = place.script("wrong.py", "from pyfaktory import Client\nClient(role='producer').connect()\n")
    url = place.url.replace(PASSWORD, "wrong")
    done = subprocess.run(python(script, url), capture_output=True, text=True, timeout=30)
    assert "wrong password" in done.stderr
