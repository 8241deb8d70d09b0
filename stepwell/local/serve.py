"""The server behind `stepwell serve`: API keys, JSON logs, a graceful shutdown."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from stepwell.api.v1.health import Broken
from stepwell.core.terminal_text import escaped_json
from stepwell.event_types.impact import event_names
from stepwell.event_types.registry import TypeRefused
from stepwell.local.database.keys import KeyStore
from stepwell.local.engine.retention import keep_clean
from stepwell.local.faktory.options import FaktoryOptions, with_faktory
from stepwell.local.http.listening import listen, url_of
from stepwell.local.http.serving import serve
from stepwell.local.http.tls import Certificate
from stepwell.local.in_service import broken_files, refuse_broken
from stepwell.local.server import Deployed, LocalServer, ServerSettings, open_server
from stepwell.local.system.prctl import hide_memory
from stepwell.project.event_types import ProjectTypes, project_types
from stepwell.project.extras import missing_for_sources
from stepwell.project.load import LoadedFunction, LoadError, PlacedProblem, load_all
from stepwell.project.only_on_aws import only_on_aws
from stepwell.project.rule_files import FoundRules
from stepwell.project.search import Tree
from stepwell.project.sources import find_sources
from stepwell.project.webhooks import find_webhooks

log = logging.getLogger("stepwell.serve")


@dataclass(frozen=True, slots=True)
class ServeOptions:
    paths: tuple[Path, ...]
    host: str
    port: int
    keep_days: float
    certificate: Certificate | None = None
    strict: bool = False  # do not start unless all definitions can be put in service
    faktory: FaktoryOptions | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """What was found below the paths."""

    tree: Tree
    functions: Sequence[LoadedFunction]
    errors: Sequence[LoadError]
    types: ProjectTypes
    webhooks: FoundRules
    sources: FoundRules

    @property
    def problems(self) -> list[PlacedProblem]:
        wrong = [problem for error in self.errors for problem in error.problems]
        wrong += [*self.types.problems, *self.webhooks.problems, *self.sources.problems]
        return [*wrong, *missing_for_sources(self.sources.rules)]


class JsonLines(logging.Formatter):
    """Formats a record as one JSON object: `time`, `level`, `logger`, `message`, and the `fields` given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return escaped_json(orjson.dumps(line, default=str).decode())


def log_json_lines() -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    logging.getLogger("httpx").setLevel(logging.WARNING)


async def main(settings: ServerSettings, options: ServeOptions) -> None:
    """Serves until this task is cancelled. Running steps then get a grace period; afterwards they are queued again."""
    log_json_lines()
    hide_memory()  # from steps, which run as the same user by default
    with listen(options.host, options.port) as listener:
        is_named = bool(settings.public_url)
        url = url_of(listener, "http" if options.certificate is None else "https")
        settings = replace(settings, public_url=settings.public_url or url)
        found = await asyncio.to_thread(_find, options.paths)
        for problem in found.problems:
            log.error("%s", problem)
        if options.strict:
            refuse_broken(broken_files(found.problems))
        async with open_server(settings) as server:
            functions = await _deploy_all(server, found)
            if options.strict:
                refuse_broken(server.broken)
            if not is_named and any(map(_has_approval, functions)):
                words = "links to approvals lead to %s; give --public-url if the server has another public address"
                log.warning(words, settings.public_url)
            keys = KeyStore(settings.database)
            if not keys.list():
                log.warning("there are no API keys, so every request is refused; create one: stepwell keys create")
            host, port = listener.getsockname()[:2]

            async def ready() -> None:
                slots = {"slots": settings.parallelism, "http_slots": settings.http_slots}
                fields = {"url": url, "host": host, "port": port, "database": str(settings.database), **slots}
                if options.faktory is not None:
                    fields["faktory"] = options.faktory.url
                log.info("listening", extra={"fields": fields})
                server.sources.start()
                await keep_clean(server.platform, options.keep_days)

            async with with_faktory(server, options.faktory) as around:
                await serve(
                    server,
                    listener,
                    keys,
                    local_only=None,
                    certificate=options.certificate,
                    around=around,
                    ready=ready,
                )
            log.info("stopping", extra={"fields": {"running": len(server.platform.executor.running_here)}})
        log.info("stopped")


def _find(paths: tuple[Path, ...]) -> Found:
    tree = Tree(paths)
    functions, errors = load_all(tree)
    return Found(tree, functions, errors, project_types(tree, functions), find_webhooks(tree), find_sources(tree))


async def _register_types(server: LocalServer, all_found: Found) -> Mapping[str, TypeRefused]:
    """Registers the event types of `schemas` folders and triggers. Returns the refusals by type name.

    A refused type is not changed: a restart must not make events of existing senders invalid."""
    found, functions = all_found.types, all_found.functions
    for warning in (*found.warnings, *await asyncio.to_thread(_expression_warnings, functions, found)):
        log.warning("%s", warning)
    refused = {}
    for item in await server.register_types([replace(one, may_break=False) for one in found.types]):
        if isinstance(item, TypeRefused):
            log.error("%s", item)
            if item.version is not None:
                refused[item.version.name] = item
        elif item.what != "unchanged":
            fields = {"type": item.name, "version": item.version, "policy": item.policy.value}
            log.info("type %s", item.what, extra={"fields": fields})
    return refused


def _expression_warnings(functions: Sequence[LoadedFunction], types: ProjectTypes) -> list[PlacedProblem]:
    if not types.types:
        return []
    from stepwell.project.expression_checks import check_expressions  # most projects have no types

    checked = check_expressions(functions, types)
    return [*checked.errors, *checked.warnings]


async def _register_webhooks(server: LocalServer, found: FoundRules) -> None:
    for warning in found.warnings:
        log.warning("%s", warning)
    done = await server.register_webhooks(found)
    for name in done.changed:
        log.info("webhook", extra={"fields": {"webhook": name}})
    for name in done.removed:
        log.info("webhook removed", extra={"fields": {"webhook": name}})


async def _register_sources(server: LocalServer, found: FoundRules) -> None:
    for warning in found.warnings:
        log.warning("%s", warning)
    done = await server.register_sources(found)
    for name in done.changed:
        log.info("source", extra={"fields": {"source": name}})
    for name in done.removed:
        log.info("source removed", extra={"fields": {"source": name}})


def _has_approval(function: LoadedFunction) -> bool:
    return any(step.runtime.type == "approval" for step in function.definition.steps.values())


async def _deploy_all(server: LocalServer, found: Found) -> Sequence[LoadedFunction]:
    """Deploys the functions that were found. A function that cannot be loaded keeps the last version."""
    for passed_over in found.tree.passed_over:
        log.warning("%s", passed_over)
    refused = await _register_types(server, found)
    await _register_webhooks(server, found.webhooks)
    await server.retire_others(found.functions, found.errors)
    broken = [*broken_files(found.problems), *(Broken(name, str(refused)) for name, refused in refused.items())]
    functions = []
    for function in found.functions:
        for warning in (*function.warnings(), *only_on_aws(function)):
            log.warning("%s", warning)
        fields = {"function": function.definition.id}
        if types := sorted(event_names(function.normalised()) & refused.keys()):
            log.error("keeps its last version: the type of %s was refused", ", ".join(types), extra={"fields": fields})
        else:
            functions.append(function)
    async for deployed in server.deploy_all(functions):
        broken += deployed.broken()
        _log_deployed(deployed)
    server.broken = broken
    await _register_sources(server, found.sources)
    return found.functions


def _log_deployed(deployed: Deployed) -> None:
    """Logs whether the function is live, and why not."""
    fields: dict[str, Any] = {"function": deployed.function.definition.id}
    for reason in deployed.missing:
        log.error("not live: %s", reason, extra={"fields": fields})
    if (registered := deployed.registered) is None:
        return
    fields |= {"version": registered.version, "new": registered.is_new}
    if not registered.is_live:
        log.warning("not live: it was deleted; a new version makes it live again", extra={"fields": fields})
    elif deployed.is_paused:
        log.warning("paused: it starts no runs until it is resumed", extra={"fields": fields})
    else:
        log.info("live", extra={"fields": fields})
