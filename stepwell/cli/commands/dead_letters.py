"""`stepwell dead-letters`: lists the dead letters of an environment in AWS, and sends them to their queue again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from stepwell.aws.topology import QUEUES
from stepwell.cli.remote.environments import EnvOption, aws, resources_of
from stepwell.cli.ui.output import JsonOption, confirm, console, fail, print_json, stderr
from stepwell.core.times import time_text
from stepwell.terminal import shown

if TYPE_CHECKING:
    from stepwell.aws.queues.dead_letters import DeadLetter, Progress

app = typer.Typer(
    help="List dead letters, the messages that could not be processed, and send them to their queue again.",
    no_args_is_help=True,
)
_REASON_IN_LOG = {"events": "see the log of route", "outcomes": "see the log of advance"}


def _check_queue(queue: str | None) -> str | None:
    if queue is not None and queue not in QUEUES:
        raise typer.BadParameter(f"there is no queue {queue}; the queues are {' and '.join(QUEUES)}")
    return queue


QueueOption = Annotated[
    str | None,
    typer.Option("--queue", callback=_check_queue, metavar="|".join(QUEUES), help="The queue; default: both."),
]


@app.command("list")
def list_letters(
    queue: QueueOption = None,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="The number of messages to list of each queue.")] = 50,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """List dead letters with their subject, age, number of tries and reason.

    Example: stepwell dead-letters list --env production
    """
    with aws():
        from stepwell.aws.clients import client
        from stepwell.aws.queues import dead_letters

        sqs, resources = client("sqs"), resources_of(env)
        found = dead_letters.queues(sqs, resources, queue)
        waiting = {dead_letter_queue.queue: dead_letters.count(sqs, dead_letter_queue) for dead_letter_queue in found}
        letters = [letter for dead_letter_queue in found for letter in dead_letters.peek(sqs, dead_letter_queue, limit)]
    if as_json:
        print_json([_view(letter) for letter in letters])
        return
    _show(letters)
    for name, most in waiting.items():
        listed = sum(letter.queue == name for letter in letters)
        console.print(f"{name}: {listed} shown" + (f" of about {most}" if most > listed else ""))


@app.command()
def redrive(
    ids: Annotated[list[str] | None, typer.Argument(metavar="[ID]...", help="Message ids; default: all.")] = None,
    queue: QueueOption = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Skip the confirmation.")] = False,
    env: EnvOption = None,
    as_json: JsonOption = False,
) -> None:
    """Send dead letters to their queue again. A message that still fails becomes a dead letter again after fifty tries.

    Example: stepwell dead-letters redrive --queue outcomes --env production
    """
    with aws():
        from stepwell.aws.clients import client
        from stepwell.aws.queues import dead_letters

        sqs, resources = client("sqs"), resources_of(env)
        found = dead_letters.queues(sqs, resources, queue)
        waiting = {dead_letter_queue: dead_letters.count(sqs, dead_letter_queue) for dead_letter_queue in found}
        amount = (
            f"{len(ids)} dead letters"
            if ids
            else _counted({dead_letter_queue.queue: most for dead_letter_queue, most in waiting.items()})
        )
        if not yes and not confirm(f"Send {amount} to their queues again?", err=True):
            raise typer.Exit(1)
        try:
            if ids:
                moved = _redrive_some(sqs, found, ids)
            else:
                moved = {
                    dead_letter_queue.queue: dead_letters.redrive_all(sqs, dead_letter_queue, _print_progress)
                    for dead_letter_queue in found
                    if waiting[dead_letter_queue]
                }
        except dead_letters.CannotRedrive as error:
            fail(str(error))
    if as_json:
        print_json({"moved": moved})
    else:
        console.print(f"moved {shown(_counted(moved))}")


def _redrive_some(sqs: Any, among: Any, ids: list[str]) -> dict[str, int]:
    from stepwell.aws.queues import dead_letters

    done = dead_letters.redrive_some(sqs, among, set(ids))
    missing = set(ids) - {letter.id for letter in done}
    if missing:
        fail(
            f"moved {len(done)}; not found: {', '.join(sorted(missing))}. Messages that another command has just read"
            " are hidden for a short time; try again in a minute"
        )
    return {item.queue: sum(letter.queue == item.queue for letter in done) for item in among}


def _counted(numbers: dict[str, int]) -> str:
    """`2 of events, 0 of outcomes`."""
    return ", ".join(f"{number} of {name}" for name, number in numbers.items()) or "nothing: there are no dead letters"


def _print_progress(progress: Progress) -> None:
    if stderr.is_terminal:
        of = "" if progress.total is None else f" of {progress.total}"
        stderr.print(f"[dim]{shown(progress.queue)}: {shown(progress.moved)}{shown(of)} moved[/]")


def _show(letters: list[DeadLetter]) -> None:
    table = Table("queue", "age", "tries", "kind", "about", "reason", "id", box=None, header_style="dim")
    now = time.time_ns() // 1_000_000
    for letter in letters:
        about = " ".join(f"{name} {value}" for name, value in letter.about.items())
        age, reason = _age(now - letter.sent_at), letter.reason or _REASON_IN_LOG[letter.queue]
        texts = (letter.queue, age, str(letter.receives), letter.kind, about, reason, letter.id)
        table.add_row(*map(shown, texts))
    if letters:
        console.print(table)


def _age(ms: int) -> str:
    """`3d`, `5h`, `12m`, `40s`."""
    seconds = max(0, ms) // 1000
    for unit, length in (("d", 86_400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"


def _view(letter: DeadLetter) -> dict[str, Any]:
    return {
        "queue": letter.queue,
        "id": letter.id,
        "kind": letter.kind,
        "sent_at": time_text(letter.sent_at),
        "receives": letter.receives,
        "about": letter.about,
        "reason": letter.reason,
    }
