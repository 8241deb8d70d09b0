"""Runs scripted steps in the test's own process, where a test is not about the step itself.

Only acts that return a value are run here; `test_scripted.py` checks that they behave as in the real runners. All other
acts (failing, waiting, printing, dying) are executed by the real runners.
"""

from __future__ import annotations

import asyncio
import io
import json
import zipfile
from functools import cache
from typing import Any

import orjson

from stepwell.core.run.messages import Outcome
from stepwell.local.runners import python_worker, worker
from stepwell.local.runners.job import End, Job, Log, Runner, Running
from stepwell.local.runners.program import STOPPED
from stepwell.testing.lambdas.function import Code, Function
from tests.behaviour.words import SCRIPTED

HANDLER = "app.scripted"
_QUICK = {"return", "status", "retry_after", "body", "input", "touch"}
_MOST = 64 * 1024  # bytes of an input; larger ones are tested with real steps
_DELAY_S = 0.001
_names: dict[str, Any] = {}
exec(SCRIPTED, _names)
scripted = _names["scripted"]


def only_returns(document: bytes) -> bool:
    """Whether the act for this input only returns a value."""
    if len(document) > _MOST:
        return False
    event, ctx = (orjson.loads(document)[name] for name in ("event", "ctx"))
    acts = event["data"].get("script", {}).get(ctx["step_id"], [{}])
    return not acts[min(ctx["attempt"], len(acts)) - 1].keys() - _QUICK


# --- local -----------------------------------------------------------------------------------------------------------


class ScriptedHandlers:
    """A `Runner` of handlers that runs scripted steps itself, and passes the others on."""

    def __init__(self, real: Runner) -> None:
        self._real = real

    def start(self, job: Job, log: Log, end: End) -> Running:
        is_scripted = job.step.runtime.handler == HANDLER and job.code is not None
        if not is_scripted or not _is_script(job.code_hash, job.code / "app.py") or not only_returns(job.input):
            return self._real.start(job, log, end)
        text = python_worker.marshal(scripted(orjson.loads(job.input), None))
        return _Answered(worker._outcome(b"o", text), end)

    async def close(self) -> None:
        await self._real.close()


class _Answered:
    def __init__(self, outcome: Outcome, end: End) -> None:
        self._end = end
        self._timer = asyncio.get_running_loop().call_later(_DELAY_S, self._finish, outcome)

    def stop(self) -> None:
        self._timer.cancel()
        self._finish(STOPPED)

    def _finish(self, outcome: Outcome) -> None:
        end, self._end = self._end, lambda outcome: None
        end(outcome)


@cache
def _is_script(code_hash: str | None, path: Any) -> bool:
    return path.is_file() and path.read_text() == SCRIPTED


# --- on AWS ----------------------------------------------------------------------------------------------------------


def answer(function: Function, payload: bytes) -> bytes | None:
    """The answer of a Lambda; None if the Lambda has to run."""
    if function.handler != HANDLER or not _holds_script(function.code) or not only_returns(payload):
        return None
    return json.dumps(scripted(orjson.loads(payload), None), ensure_ascii=False).encode()  # as Lambda's runtime does


@cache
def _holds_script(code: Code) -> bool:
    with zipfile.ZipFile(io.BytesIO(code.content)) as archive:
        return "app.py" in archive.namelist() and archive.read("app.py").decode() == SCRIPTED
