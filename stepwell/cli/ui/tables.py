"""Tables and details of functions, events, runs and approvals, as people read them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import orjson
from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from stepwell.terminal import shown, styled

STATUS_STYLES = {
    "completed": "green",
    "failed": "red",
    "cancelled": "yellow",
    "running": "cyan",
    "retrying": "yellow",
    "waiting": "blue",
    "queued": "cyan",
    "lost": "yellow",
}


def status(name: str) -> Text:
    return Text(name, STATUS_STYLES.get(name, "dim"))


def local_time(text: str | None) -> str:
    """An RFC 3339 time in the local time zone, with the date unless it is today."""
    if text is None:
        return ""
    moment = datetime.fromisoformat(text).astimezone()
    is_today = moment.date() == datetime.now().astimezone().date()
    return moment.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M:%S")


def duration(start: str | None, end: str | None) -> str:
    """The time between two RFC 3339 times; until now if `end` is None."""
    if start is None:
        return ""
    until = datetime.fromisoformat(end) if end else datetime.now(UTC)
    return elapsed((until - datetime.fromisoformat(start)).total_seconds())


def elapsed(seconds: float) -> str:
    """A length of time in the one or two units that fit it: `65 ms`, `2.1 s`, `5 min 3 s`, `26 h 0 min`, `3 d 0 h`."""
    if seconds < 1:
        return f"{max(0.0, seconds) * 1000:.0f} ms"
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 120:
        return f"{minutes} min {rest} s"
    hours = minutes // 60
    return f"{hours} h {minutes % 60} min" if hours < 48 else f"{hours // 24} d {hours % 24} h"


def trigger_text(trigger: dict[str, Any]) -> str:
    if trigger.get("cron"):
        return f"cron {trigger['cron']} ({trigger['timezone']})"
    condition = f" if {trigger['expression']}" if trigger.get("expression") else ""
    return f"{trigger['event']}{condition}"


def short(data: Any, width: int = 60) -> str:
    text = orjson.dumps(data).decode()
    return text if len(text) <= width else text[: width - 1] + "…"


def function_table(functions: list[dict[str, Any]]) -> Table:
    table = Table("function", "version", "starts on", "steps", box=None, header_style="dim", pad_edge=False)
    has_waits = any(function.get("waits_by_name") for function in functions)
    if has_waits:
        table.add_column("waits by name")
    for function in functions:
        triggers = "\n".join(shown(trigger_text(trigger)) for trigger in function["triggers"])
        steps = ", ".join(function["steps"])
        waits = [f"{function.get('waits_by_name') or 0:,}"] if has_waits else []
        table.add_row(shown(function["id"]), shown(f"v{function['version']}"), triggers, shown(steps), *waits)
    return table


def function_lines(function: dict[str, Any]) -> RenderableType:
    live = f"v{function['version']}" if function["version"] else "not live"
    lines = [styled((function["id"], "bold"), f"  {live}  ", (function["name"], "dim"))]
    lines += [styled(f"  starts on {trigger_text(trigger)}") for trigger in function["triggers"]]
    for version in function["versions"]:
        lines.append(Text(f"  v{version['version']} made {local_time(version['created_at'])}", "dim"))
    if function.get("waits_by_name"):
        waits = f"  {function['waits_by_name']:,} open waits are found by event name alone; "
        lines.append(Text(f"{waits}`stepwell validate` names each match that needs an equality", "yellow"))
    for step_id, step in function["steps"].items():
        lines.append(Text.assemble(styled("  step ", (step_id, "bold")), "\n", _indented(step)))
    return Group(*lines)


def _indented(data: Any) -> str:
    text = orjson.dumps(data, option=orjson.OPT_INDENT_2).decode()
    return "\n".join(f"    {line}" for line in text.splitlines())


def event_table(events: list[dict[str, Any]]) -> Table:
    table = Table("event", "accepted", "name", "data", box=None, header_style="dim", pad_edge=False)
    table.columns[0].no_wrap = table.columns[1].no_wrap = True
    for event in events:
        name, data = shown(event["name"]), shown(short(event["data"]))
        name += "  [yellow]invalid[/]" if event["invalid"] else ""
        table.add_row(shown(event["id"]), local_time(event["accepted_at"]), name, data)
    return table


def event_lines(event: dict[str, Any], runs: list[dict[str, Any]]) -> RenderableType:
    lines: list[RenderableType] = [
        styled(
            (event["name"], "bold"),
            f"  {event['id']}  ",
            (local_time(event["accepted_at"]), "dim"),
            (f"  from another server, for replay {event['replay']}" if event["replay"] else "", "magenta"),
        ),
        Text(f"  data  {short(event['data'], 2000)}"),
        Text(f"  user  {short(event['user'], 2000)}"),
    ]
    for run in runs:
        replay = (f"  replay {run['replay']}" if run["replay"] else "", "magenta")
        lines.append(styled("  started ", run["function_id"], f"  {run['id']}  ", status(run["status"]), replay))
    for miss in event["not_started"]:
        reason = ": ".join(text for text in (miss["expression"], miss["problem"] or "is false") if text)
        lines.append(styled("  not started ", miss["function_id"], (f"  {reason}", "dim")))
    for item in event["invalid"]:
        lines.append(styled(("  invalid ", "yellow"), f"{item['pointer']}: {item['message']}"))
    if not runs and not event["not_started"]:
        lines.append(Text("  no function has a trigger for this event", "dim"))
    return Group(*lines)


def run_table(runs: list[dict[str, Any]]) -> Table:
    table = Table("run", "function", "status", "created", "took", "user", box=None, header_style="dim", pad_edge=False)
    table.columns[0].no_wrap = True
    for run in runs:
        table.add_row(
            shown(run["id"]),
            shown(f"{run['function_id']} v{run['function_version']}"),
            status(run["status"]).append(" replay" if run["replay"] else "", "magenta"),
            local_time(run["created_at"]),
            duration(run["created_at"], run["ended_at"]),
            shown(run["user"] or ""),
        )
    return table


def approval_lines(approvals: list[dict[str, Any]]) -> RenderableType:
    """For each approval: the run and the step, the message below in the full width, and who may decide until when."""
    lines: list[RenderableType] = []
    for approval in approvals:
        lines.append(styled((approval["run_id"], "bold"), f"  {approval['function_id']} {approval['step_id']}"))
        lines.append(Padding(Text(approval["message"], overflow="fold"), (0, 0, 0, 2)))
        approvers = f"by {', '.join(approval['approvers'])} " if approval["approvers"] else ""
        until = f"to be decided {approvers}until {local_time(approval['expires_at'])}"
        times = styled((f"asked {local_time(approval['requested_at'])}, {until}", "dim"))
        lines.append(Padding(times, (0, 0, 0, 2)))
    return Group(*lines)


def routing_text(routing: dict[str, Any]) -> Text:
    """One line that shows which version new runs use, and whether the function is paused."""
    live, canary = routing["live"], routing["canary"]
    text = styled((routing["function_id"], "bold"), f"  v{live} live" if live else "  not live")
    if canary is not None:
        text.append(f" {1 - canary['weight']:.0%}, v{canary['version']} canary {canary['weight']:.0%}")
        text.append(f", sticky by {canary['sticky']}" if canary["sticky"] else "")
        text.append(", guarded" if canary["guarded"] else "")
    states = {"paused": "paused: events are kept", "dropping": "paused: events are dropped", "deleted": "deleted"}
    if routing["state"] in states:
        text.append(f"  {states[routing['state']]}", "yellow")
    return text


def version_table(versions: list[dict[str, Any]]) -> Table:
    titles = ("version", "weight", "runs", "failed", "p50", "p95", "author", "message", "made")
    table = Table(*titles, box=None, header_style="dim", pad_edge=False)
    for version in versions:
        failed = version["failure_rate"]
        table.add_row(
            shown(f"v{version['version']}"),
            f"{version['weight']:.0%}" if version["weight"] else "",
            shown(version["runs"]),
            "" if failed is None else f"{failed:.1%}",
            milliseconds(version["p50_ms"]),
            milliseconds(version["p95_ms"]),
            shown(version["author"]),
            shown(version["message"]),
            local_time(version["created_at"]),
        )
    return table


def milliseconds(ms: int | None) -> str:
    if ms is None:
        return ""
    return f"{ms} ms" if ms < 1000 else f"{ms / 1000:.1f} s" if ms < 120_000 else f"{ms / 60_000:.0f} min"
