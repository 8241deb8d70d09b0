"""A client for the HTTP API of the deployed environment."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import httpx

Json = dict[str, Any]


def statuses(runs: list[Json], function: str | None = None) -> dict[str, int]:
    return dict(Counter(run["status"] for run in runs if function in (None, run["function_id"])))


def waiting(runs: list[Json]) -> int:
    """The number of orders that wait for `order/packed`."""
    return sum(
        run["function_id"] == "order" and run["status"] == "running" and run["steps"]["ship"]["status"] == "waiting"
        for run in runs
    )


class Client:
    def __init__(self, emulator_url: str, api_url: str, key: str) -> None:
        # The emulator selects the API by the Host header.
        host = f"{httpx.URL(api_url).host.split('.')[0]}.execute-api.localhost:{httpx.URL(emulator_url).port}"
        headers = {"authorization": f"Bearer {key}", "host": host}
        self._http = httpx.Client(base_url=emulator_url, headers=headers, timeout=60)

    def call(self, method: str, path: str, body: Any = None) -> Any:
        response = self._http.request(method, path, json=body)
        assert response.is_success, f"{method} {path}: {response.status_code} {response.text[:500]}"
        return response.json()

    def send(self, events: list[Json]) -> list[str]:
        ids: list[str] = self.call("POST", "/e", events)["ids"]
        assert len(ids) == len(events)
        return ids

    def post(self, path: str, body: bytes, headers: dict[str, str]) -> list[str] | None:
        """Sends a request without an API key. Returns the ids of the events, or None if the signature is rejected."""
        response = self._http.post(path, content=body, headers={"authorization": "", **headers})
        if response.status_code == 401:
            return None
        assert response.is_success, f"POST {path}: {response.status_code} {response.text[:500]}"
        ids: list[str] = response.json()["ids"]
        return ids

    def runs(self) -> list[Json]:
        runs: list[Json] = []
        after = ""
        while True:
            page = self.call("GET", f"/v1/runs?limit=200{after}")
            runs += page["data"]
            if page["next"] is None:
                return runs
            after = f"&after={page['next']}"

    def until(self, holds: Callable[[list[Json]], bool], what: str, patience_s: float = 90) -> list[Json]:
        """The runs as they are once this holds of them; ends the rehearsal if it does not."""
        deadline = time.monotonic() + patience_s
        while not holds(runs := self.runs()):
            if time.monotonic() > deadline:
                failed = next((run["error"] for run in runs if run["error"]), None)
                sys.exit(f"never: {what}; runs: {statuses(runs)}, waiting: {waiting(runs)}, first error: {failed}")
            time.sleep(1)
        print(f"  {what}", flush=True)
        return runs

    def until_completed(self, run_id: str, what: str) -> Json:
        def completed(runs: list[Json]) -> bool:
            return any(run["id"] == run_id and run["status"] == "completed" for run in runs)

        return next(run for run in self.until(completed, what) if run["id"] == run_id)

    def start(self, event: Json) -> Json:
        """Sends an event that starts one function, and returns the run."""
        (event_id,) = self.send([event])
        what = f"{event['name']} starts a run"
        runs = self.until(lambda runs: any(run["event_id"] == event_id for run in runs), what)
        return next(run for run in runs if run["event_id"] == event_id)
