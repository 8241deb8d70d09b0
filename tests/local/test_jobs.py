"""Jobs for the runners: code, input, and environment variables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stepwell.core.definition.definition import parse_definition
from stepwell.core.events.events import event_from
from stepwell.core.run.run import new_run
from stepwell.local.engine.jobs import Jobs
from stepwell.local.runners.job import CannotRun, Job
from stepwell.local.store.store import LocalStore
from stepwell.platform import Attempt, RunRecord

CODE = {"path": "file://.", "runtime": {"type": "lambda", "handler": "app.f"}, "after": [{"step": "$trigger"}]}
FOLDER = Path("code")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "db")
    yield store
    store.close()


def job_of(store: LocalStore, known: dict[str, str], dotenv: dict[str, str], **fields: Any) -> Job:
    steps = {"a": {**CODE, **fields}, "b": CODE}
    raw = {"id": "f", "triggers": [{"event": "go"}], "steps": steps}
    codes = {"a": "1" * 64, "b": "2" * 64}
    store.batch(0)
    store.functions.register(parse_definition(raw).normalised(), codes, {"a": dotenv, "b": {"OF": "b"}}, "f.json", 0)
    plan = store.functions.plan("f", 1)
    record = RunRecord(new_run("r", plan, 0), plan, event_from({"name": "go", "id": "e", "ts": 0}), 1)
    return Jobs(store, FOLDER, known.get).make(Attempt(record, 0, 3, b"{}"))


def test_a_job_names_its_attempt_and_the_code_of_its_step(store: LocalStore) -> None:
    job = job_of(store, {}, {})
    assert (job.run_id, job.function_id, job.version, job.step.id, job.attempt) == ("r", "f", 1, "a", 3)
    assert (job.input, job.code, job.code_hash) == (b"{}", FOLDER / ("1" * 64), "1" * 64)
    assert job.env == {}


def test_secrets_override_declared_variables_which_override_the_env_file(store: LocalStore) -> None:
    dotenv = {"ALL": "dotenv", "BOTH": "dotenv", "FILE": "dotenv"}
    fields: dict[str, Any] = {"env": {"BOTH": "step", "STEP": "step"}, "secrets": ["ALL"]}
    job = job_of(store, {"ALL": "secret", "OTHER": "secret"}, dotenv, **fields)
    assert job.env == {"ALL": "secret", "BOTH": "step", "STEP": "step", "FILE": "dotenv"}


def test_a_step_whose_secret_has_no_value_cannot_run(store: LocalStore) -> None:
    with pytest.raises(CannotRun, match="the secret KEY is not set; set KEY in the server's environment"):
        job_of(store, {}, {"KEY": "dotenv"}, secrets=["KEY"])


def test_an_empty_secret_is_a_value(store: LocalStore) -> None:
    assert job_of(store, {"KEY": ""}, {}, secrets=["KEY"]).env == {"KEY": ""}
