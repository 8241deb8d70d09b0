"""The server of `stepwell dev`: accepts any key, only on this machine, and deploys functions when files are saved."""

from __future__ import annotations

import asyncio
import logging
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from stepwell.api.access import AnyKey, LocalOnly
from stepwell.dev.deploy_console import DeployConsole
from stepwell.dev.event_console import EventConsole
from stepwell.dev.output import Output
from stepwell.dev.watching import Watcher
from stepwell.local.database.log_files import log_folder
from stepwell.local.engine.retention import keep_clean
from stepwell.local.faktory.options import FaktoryOptions, with_faktory
from stepwell.local.http.listening import listen, url_of
from stepwell.local.http.serving import serve
from stepwell.local.http.tls import Certificate
from stepwell.local.in_service import broken_files
from stepwell.local.server import LocalServer, ServerSettings, open_server
from stepwell.log_lines import log_lines
from stepwell.project.event_types import ProjectTypes, project_types, unannounced_breaks
from stepwell.project.extras import missing_for_sources
from stepwell.project.known import KnownFunctions
from stepwell.project.load import LoadedFunction, PlacedProblem
from stepwell.project.search import Tree, is_file
from stepwell.project.sources import find_sources
from stepwell.project.webhooks import find_webhooks
from stepwell.run_log import ATTEMPTS, EVENTS, WAITS


@dataclass(frozen=True, slots=True)
class DevOptions:
    paths: tuple[Path, ...]
    host: str
    port: int
    key: str | None
    local_only: LocalOnly
    keep_days: float
    as_json: bool
    certificate: Certificate | None = None
    faktory: FaktoryOptions | None = None


async def main_in_memory(settings: ServerSettings, options: DevOptions) -> None:
    """Does the same as `main`, with the database and code in a temporary folder, which is deleted at the end."""
    with tempfile.TemporaryDirectory(prefix="stepwell-dev-") as folder:
        await main(replace(settings, database=Path(folder, "stepwell.db")), options)


async def main(settings: ServerSettings, options: DevOptions) -> None:
    """Serves until SIGINT or SIGTERM."""
    log_lines()
    for name in ("runs", "types"):  # the console prints these
        logging.getLogger(f"stepwell.{name}").setLevel(logging.ERROR)
    with listen(options.host, options.port) as listener:
        url = url_of(listener, "http" if options.certificate is None else "https")
        async with open_server(replace(settings, public_url=settings.public_url or url)) as server:
            output = Output(as_json=options.as_json)
            console = DeployConsole(output)
            events = EventConsole(output, server.queries, server.platform.store.catalog)
            for name, level in ((ATTEMPTS, logging.INFO), (EVENTS, logging.DEBUG), (WAITS, logging.DEBUG)):
                logger = logging.getLogger(name)
                logger.setLevel(level)
                logger.propagate = False  # the console prints these records
                logger.addHandler(events)
            known = KnownFunctions()
            await deploy_all(server, options.paths, console, known)

            async def ready() -> None:
                faktory = "" if options.faktory is None else options.faktory.url
                console.ready(url, options.paths, len(server.broken), faktory)
                server.sources.start()
                await asyncio.gather(
                    watch(server, options.paths, console, known),
                    events.follow(server.platform.store.events.newest),
                    keep_clean(server.platform, options.keep_days),
                )

            keys = AnyKey(options.key)
            async with with_faktory(server, options.faktory) as around:
                await serve(
                    server,
                    listener,
                    keys,
                    local_only=options.local_only,
                    certificate=options.certificate,
                    around=around,
                    ready=ready,
                )


async def deploy_all(server: LocalServer, paths: Iterable[Path], console: DeployConsole, known: KnownFunctions) -> Tree:
    """Deploys what is on disk. A definition that does not load is reported, and the old version stays live. Functions
    that have not changed since the last time are skipped."""
    tree = await asyncio.to_thread(Tree, paths)
    functions, errors = await asyncio.to_thread(known.load_all, tree)
    problems = [problem for error in errors for problem in error.problems]
    console.problems(problems)
    console.passed_over(tree.passed_over)
    types = await register_types(server, tree, functions, console)
    webhooks = await asyncio.to_thread(find_webhooks, tree)
    console.webhooks(await server.register_webhooks(webhooks), webhooks)
    for function_id in await server.retire_others(functions, errors):
        console.removed(function_id)
    sources = await asyncio.to_thread(find_sources, tree)
    broken = broken_files([*problems, *types.problems, *webhooks.problems, *sources.problems])
    async for deployed in server.deploy_all([function for function in functions if not known.is_in_service(function)]):
        console.deployed(deployed)
        if deployed.registered is not None:
            known.put_in_service(deployed.function)
        broken += deployed.broken()
    missing = missing_for_sources(sources.rules)
    console.sources(await server.register_sources(sources), sources, missing)
    server.broken = [*broken, *broken_files(missing)]
    return tree


async def register_types(
    server: LocalServer, paths: Iterable[Path], functions: Sequence[LoadedFunction], console: DeployConsole
) -> ProjectTypes:
    found = await asyncio.to_thread(project_types, paths, functions)
    results = await server.register_types(found.types)
    console.types(results, found.problems, [*found.warnings, *await asyncio.to_thread(_doubts, functions, found)])
    return found


def _doubts(functions: Sequence[LoadedFunction], types: ProjectTypes) -> list[PlacedProblem]:
    """The errors and warnings of a push, which are only printed here."""
    if not types.types:
        return []
    from stepwell.project.expression_checks import check_expressions  # imported late: most projects have no types

    checked = check_expressions(functions, types)
    return [*checked.errors, *checked.warnings, *unannounced_breaks(types)]


async def watch(server: LocalServer, paths: Iterable[Path], console: DeployConsole, known: KnownFunctions) -> None:
    """Deploys again whenever a file below the paths is saved."""
    named = {path.parent if is_file(path) else path for path in paths}
    database = server.settings.database
    watcher = Watcher((database, log_folder(database), server.settings.code), console.trouble)
    linked: list[Path] = []
    while True:
        await watcher.follow([*named, *linked])
        try:
            linked = (await deploy_all(server, paths, console, known)).linked
        except Exception as error:  # a saved file must never end the server
            console.trouble(f"cannot deploy: {error}")
        if not await watcher.follow([*named, *linked]):
            await watcher.change()
