"""`stepwell workers`: lists the Faktory workers that are connected to a server, and stops them."""

from __future__ import annotations

from typing import Annotated, Any

import typer
from rich.table import Table

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.ui.output import JsonOption, console, print_json
from stepwell.cli.ui.tables import local_time
from stepwell.terminal import shown

app = typer.Typer(no_args_is_help=True, help="List and stop the Faktory workers that are connected to a server.")
WorkerArgument = Annotated[str, typer.Argument(help="The worker's id, as `stepwell workers list` prints it.")]


@app.command("list")
def list_workers(as_json: JsonOption = False) -> None:
    """List the workers that are connected to the server.

    Example: stepwell workers list
    """
    workers = Client(None).get("/v1/workers")["data"]
    if as_json:
        print_json(workers)
        return
    if not workers:
        console.print("no workers are connected; start the server with --faktory, and workers with FAKTORY_URL")
        return
    table = Table("worker", "host", "queues", "state", "heartbeat", box=None, header_style="dim", pad_edge=False)
    for worker in workers:
        host, queues = f"{worker['hostname']}:{worker['pid']}", ", ".join(worker["queues"])
        table.add_row(shown(worker["id"]), shown(host), shown(queues), worker["state"], local_time(worker["beat_at"]))
    console.print(table)


@app.command()
def quiet(worker: WorkerArgument, as_json: JsonOption = False) -> None:
    """Tell a worker to finish its jobs, and to fetch no more. It gets the order with its next heartbeat.

    Example: stepwell workers quiet 4qpc2443vpvai
    """
    _order(worker, "quiet", "finishes its jobs and fetches no more", as_json)


@app.command()
def terminate(worker: WorkerArgument, as_json: JsonOption = False) -> None:
    """Tell a worker to end within 30 s. It gets the order with its next heartbeat.

    Example: stepwell workers terminate 4qpc2443vpvai
    """
    _order(worker, "terminate", "ends within 30 s", as_json)


def _order(worker: str, order: str, what: str, as_json: bool) -> None:
    view: Any = Client(None).post(f"/v1/workers/{in_path(worker)}/{order}")
    if as_json:
        print_json(view)
    else:
        console.print(f"{shown(worker)} {shown(what)}, after its next heartbeat")
