"""Draws a run as a tree: steps, attempts, timings, outputs, errors and waits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.text import Text
from rich.tree import Tree

from stepwell.cli.ui.tables import duration, local_time, short, status
from stepwell.terminal import styled


def run_tree(run: Mapping[str, Any], *, logs: bool = False) -> Tree:
    head = styled(
        (f"{run['function_id']} v{run['function_version']}", "bold"),
        "  ",
        status(run["status"]),
        (f"  {duration(run['created_at'], run['ended_at'])}", "dim"),
        Text("\n"),
        (f"run {run['id']}  event {run['event_id']}", "dim"),
        (f"  replay {run['replay']}" if run["replay"] else "", "magenta"),
    )
    tree = Tree(head)
    for step_id, step in run["steps"].items():
        _add_step(tree, step_id, step, logs)
    if "problem" in run:
        tree.add(Text(run["problem"], "yellow"))
    if "waiting_for" in run:
        tree.add(_waiting_for(run["waiting_for"]))
    if run["cancelled_by"] is not None:
        tree.add(Text(f"cancelled by event {run['cancelled_by']}", "yellow"))
    if run.get("timeout"):
        tree.add(Text(f"cancelled, reason: {run['reason']} (`{run['timeout']}` of `timeouts`)", "yellow"))
    if run.get("replaced_by"):
        tree.add(Text(f"cancelled, reason: singleton; run {run['replaced_by']} has taken its place", "yellow"))
    for rule in run["cancel"]:
        if "problem" in rule:
            tree.add(Text(f"cancel on {rule['event']}: no match, {rule['problem']}", "yellow"))
    if run["output"] is not None:
        tree.add(styled(("output ", "dim"), short(run["output"], 500)))
    if run["error"] is not None:
        tree.add(Text(f"failed at step {run['error']['step']}: {run['error']['message']}", "red"))
    return tree


def approval_links(run: Mapping[str, Any]) -> list[Text]:
    """The approve and decline links of open approvals. Print them without wrapping, so that they can be copied."""
    return [
        styled((f"{word} ", style), (f"{step_id}  ", "bold"), step["approval"][f"{word}_url"])
        for step_id, step in run["steps"].items()
        if "approval" in step
        for word, style in (("approve", "green"), ("decline", "yellow"))
    ]


def _add_step(tree: Tree, step_id: str, step: dict[str, Any], logs: bool) -> None:
    attempts = step["attempts"]
    took = ""
    if attempts and attempts[-1]["started_at"]:
        took = f"  {duration(attempts[0]['started_at'], attempts[-1]['ended_at'])}"
    took = "  kept" if step.get("kept") else took
    branch = tree.add(styled((step_id, "bold"), "  ", status(step["status"]), (took, "dim")))
    for edge in step["after"]:
        _add_edge(branch, edge, step["status"])
    if len(attempts) > 1 or any(attempt["error"] for attempt in attempts):
        for attempt in attempts:
            _add_attempt(branch, attempt)
    if step["next_attempt_at"]:
        branch.add(Text(f"next attempt at {local_time(step['next_attempt_at'])}", "yellow"))
    if "problem" in step:
        branch.add(Text(step["problem"], "yellow"))
    if "waiting_for" in step:
        branch.add(_waiting_for(step["waiting_for"]))
    if "approval" in step:
        _add_approval(branch, step["approval"])
    if step["status"] == "completed":
        branch.add(styled(("output ", "dim"), short(step["output"], 200)))
    if logs:
        for attempt in attempts:
            for line in attempt["logs"].splitlines():
                branch.add(styled((f"{attempt['attempt']} │ ", "dim"), line))


def _waiting_for(waiting: dict[str, Any]) -> Text:
    key = "" if waiting["key"] is None else f" for {short(waiting['key'], 100)}"
    ahead = f", {waiting['ahead']:,} ahead" if waiting["ahead"] else ", next in turn"
    return Text(f"waits for the limit {waiting['limit']}{key}{ahead}, since {local_time(waiting['since'])}", "blue")


def _add_approval(branch: Tree, approval: dict[str, Any]) -> None:
    branch.add(Text(approval["message"], "bold blue"))
    approvers = f"by {', '.join(approval['approvers'])} " if approval["approvers"] else ""
    branch.add(Text(f"to be decided {approvers}until {local_time(approval['expires_at'])}", "blue"))


def _add_edge(branch: Tree, edge: dict[str, Any], step_status: str) -> None:
    """Adds a wait always, another edge only if it explains why a step did not start."""
    text = Text(f"after {edge['step']}", "dim")
    event = edge.get("event")
    if event:
        matched = f" by {edge['event_id']}" if edge.get("event_id") else ""
        text.append(f", event {event}: {edge.get('state', edge['status'])}{matched}", "blue")
    elif "state" in edge:
        text.append(f", {edge['state']}", "blue")
    if edge.get("until"):
        text.append(f" until {local_time(edge['until'])}", "blue")
    if edge.get("problem"):
        text.append(f": {_about_problem(edge)}{edge['problem']}", "yellow")
    if event or "state" in edge or edge.get("problem") or (step_status == "skipped" and edge["status"] == "dead"):
        if not event and "state" not in edge and not edge.get("problem"):
            text.append(", not taken")
        branch.add(text)


def _about_problem(edge: dict[str, Any]) -> str:
    if edge["problem"].startswith("wait.until: "):
        return ""
    return "no match, " if "state" in edge else "`if` has no value, "


def _add_attempt(branch: Tree, attempt: dict[str, Any]) -> None:
    text = styled(
        f"attempt {attempt['attempt']}  ",
        status(attempt["status"]),
        (f"  {duration(attempt['started_at'], attempt['ended_at'])}", "dim"),
    )
    if attempt["error"]:
        text.append(f"  {attempt['error']['kind']}: {attempt['error']['message']}", "red")
    branch.add(text)
