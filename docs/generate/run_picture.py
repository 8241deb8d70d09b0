"""The picture of a run: runs examples/ship-order and draws the result as images/run.svg.

`python docs/generate/run_picture.py` writes the file. It has no times and no ids: each run gives the same.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from dag_svg import Edge, Node, draw

from stepwell.project.load import load

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "ship-order"
FILE = ROOT / "docs" / "images" / "run.svg"
EVENT = {"name": "order/confirmed", "data": {"order": "A-17", "total": 1250}}
THEN = {"name": "parcel/delivered", "data": {"order": "A-17"}}
TRIGGER = "$trigger"


def main() -> None:
    FILE.write_text(picture(run()), "utf-8")


def run() -> Any:
    """The run, as `stepwell run --json` prints it."""
    command = ["run", str(EXAMPLE), "--event", json.dumps(EVENT), "--then", json.dumps(THEN), "--json"]
    done = subprocess.run([sys.executable, "-m", "stepwell", *command], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


def picture(run: Mapping[str, Any]) -> str:
    """The run of the example as SVG."""
    steps = load(EXAMPLE).definition.model_dump(mode="json", by_alias=True, exclude_unset=True)["steps"]
    nodes = [Node(TRIGGER, EVENT["name"], "event", "event")]
    nodes += [Node(name, name, step["status"], _status(step)) for name, step in run["steps"].items()]
    return draw(f"A run of the function {run['function_id']}", nodes, list(_edges(run["steps"], steps)))


def _status(step: Mapping[str, Any]) -> str:
    tries = len(step["attempts"])
    return f"{step['status']}, attempt {tries}" if tries > 1 else step["status"]


def _edges(ran: Mapping[str, Any], defined: Mapping[str, Any]) -> Iterator[Edge]:
    for name, step in ran.items():
        definitions = defined[name].get("after", [{"step": TRIGGER}])
        for edge, definition in zip(step["after"], definitions, strict=True):
            yield Edge(edge["step"], name, edge["status"] == "satisfied", _label(definition))


def _label(edge: Mapping[str, Any]) -> str:
    if wait := edge.get("async"):
        return f"no {wait['event']} in {wait['ttl']}" if wait.get("onTimeout") else f"async {wait['event']}"
    if "if" in edge:
        return f"if {edge['if']}"
    return f"on {edge['on']}" if "on" in edge else f"wait {edge['wait']}" if "wait" in edge else ""


if __name__ == "__main__":
    main()
