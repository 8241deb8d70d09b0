"""The local server: the platform, its functions, and the HTTP API in one process."""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from stepwell.api.v1.health import Broken
from stepwell.api.v1.workers import NoWorkers, Workers
from stepwell.core.compile import compile_plan
from stepwell.core.routing.versions import Release
from stepwell.event_types.registry import TypeChange, TypeRefused, TypeVersion
from stepwell.local.code.check import check_code
from stepwell.local.code.in_use import needed_versions
from stepwell.local.code.keeper import CodeKeeper
from stepwell.local.database.keys import database_name
from stepwell.local.database.lock import exclusive
from stepwell.local.engine.clock import Clock
from stepwell.local.engine.platform import LocalPlatform
from stepwell.local.engine.settings import DEFAULT_URL, Settings
from stepwell.local.engine.slots import DEFAULT_HTTP_SLOTS
from stepwell.local.queries.queries import Queries
from stepwell.local.runners.router import Runners
from stepwell.local.sources.supervisor import LocalSources
from stepwell.local.store.functions import PUSHED, Registered
from stepwell.local.store.store import LocalStore
from stepwell.local.system.cpus import usable_cpus
from stepwell.local.system.files import make_code_folder, make_folder, make_private, open_code
from stepwell.local.system.step_user import StepUser, check_access, python_warning
from stepwell.local.webhooks import LocalWebhooks, Synchronised
from stepwell.project.archive import unpack
from stepwell.project.code import dotenv
from stepwell.project.load import LoadedFunction, LoadError, load
from stepwell.project.rule_files import FoundRules

log = logging.getLogger("stepwell.server")

_AT_ONCE = 50  # functions that are deployed together


def default_parallelism() -> int:
    return 2 * usable_cpus()


@dataclass(frozen=True, slots=True)
class ServerSettings:
    database: Path
    env: str = "dev"
    durable: bool = False  # sync every commit to disk
    parallelism: int = field(default_factory=default_parallelism)
    http_slots: int = DEFAULT_HTTP_SLOTS  # for steps that call URLs; they do not use the other slots
    no_containers: bool = False
    serves_faktory: bool = False  # whether Faktory workers can connect
    secret: Callable[[str], str | None] = os.environ.get
    step_user: StepUser | None = None  # the user that programs and handlers run as; None: the server's
    public_url: str = ""  # the API's public address; empty: the address that it listens on
    compiled: Path | None = None  # the folder of compiled WebAssembly modules; None: one beside the database
    paths: tuple[Path, ...] = ()  # where functions are loaded from
    code_may_be_lost: bool = False  # start although code of some versions is lost
    grace_s: float = 0.0  # how long running steps may continue when the server stops

    @property
    def code(self) -> Path:
        """The folder of step code, beside the database. It is hidden, so that no definition is found in it."""
        return self.database.absolute().with_name(f".{self.database.name}.code")  # steps run in other folders


@dataclass(frozen=True, slots=True)
class Deployed:
    """The result of a deployment. `missing` has the reasons why this machine cannot run some steps, with fixes. A
    function with such steps is not live."""

    function: LoadedFunction
    registered: Registered | None
    missing: Sequence[str]
    is_paused: bool = False

    @property
    def is_live(self) -> bool:
        """Whether new runs use the version, including runs that wait until the function is resumed."""
        return self.registered is not None and self.registered.is_live

    def broken(self) -> list[Broken]:
        return [Broken(self.function.definition.id, f"{self.function.file}: {name}") for name in self.missing]


@dataclass(frozen=True, slots=True)
class _Prepared:
    """What a function is registered with: `code` hashes by step, `dotenv` values by step, `missing` as in Deployed."""

    function: LoadedFunction
    definition: dict[str, Any]
    code: Mapping[str, str]
    dotenv: Mapping[str, Mapping[str, str]]
    missing: Sequence[str]


class LocalServer:
    """A started platform and the parts that belong to it. Made by `open_server`."""

    def __init__(
        self, platform: LocalPlatform, runners: Runners, code: CodeKeeper, queries: Queries, settings: ServerSettings
    ) -> None:
        self.platform, self.queries, self.settings = platform, queries, settings
        self.webhooks = LocalWebhooks(platform, settings.secret, settings.public_url or DEFAULT_URL)
        self.sources = LocalSources(platform, settings.secret)
        self.broken: Sequence[Broken] = ()  # definitions that could not be put in service
        self.faktory_runner = runners.faktory
        self.workers: Workers = NoWorkers()  # workers of other systems that are connected
        self._runners, self._code = runners, code

    async def deploy(self, function: LoadedFunction) -> Deployed:
        """Deploys a function. If it equals the newest version, no new version is made."""
        async with self.platform.code_lock:
            return await self._deploy(await asyncio.to_thread(self._prepare, function))

    async def deploy_all(self, functions: Sequence[LoadedFunction]) -> AsyncIterator[Deployed]:
        """Deploys functions in order. Faster than one at a time. Prepares the catalog for the next events."""
        for start in range(0, len(functions), _AT_ONCE):
            async with self.platform.code_lock:
                some = functions[start : start + _AT_ONCE]
                prepared = await asyncio.to_thread(self._prepare_all, some)
                deployed = await asyncio.gather(*map(self._deploy, prepared))
            for item in deployed:
                yield item
        await self.platform.prepare()

    async def push(self, archive: IO[bytes], release: Release) -> Deployed:
        """Deploys an uploaded archive. If this machine cannot run it, nothing changes.

        Raises BadArchive, LoadError, NotPossible, OSError (disk full)."""
        release.check()
        async with self.platform.code_lock:
            with tempfile.TemporaryDirectory() as folder:
                await asyncio.to_thread(unpack, archive, Path(folder))
                function = await asyncio.to_thread(load, Path(folder))
                deployed = await self._deploy(await asyncio.to_thread(self._prepare, function), release)
            if (registered := deployed.registered) is not None:
                await asyncio.to_thread(self._code.store_archive, registered.function_id, registered.version, archive)
            return deployed

    def _prepare_all(self, functions: Sequence[LoadedFunction]) -> list[_Prepared]:
        return [self._prepare(function) for function in functions]

    def _prepare(self, function: LoadedFunction) -> _Prepared:
        """Stores a function's code, and checks whether this machine can run it. Call it in a thread: it reads files."""
        code, dotenvs = {}, {}
        definition = function.normalised()
        for step_id, step_code in function.steps.items():
            self._code.store(step_code)
            code[step_id] = step_code.hash
            if values := dotenv(step_code.folder):
                dotenvs[step_id] = values
        missing = []
        for step in compile_plan(definition, 0).steps:
            folder = self.settings.code / code[step.id] if step.id in code else None
            reason = self._runners.check(step, folder)
            if reason is not None:
                missing.append(f"step {step.id}: {reason}")
        return _Prepared(function, definition, code, dotenvs, missing)

    async def _deploy(self, prepared: _Prepared, release: Release | None = None) -> Deployed:
        function, function_id = prepared.function, prepared.function.definition.id
        if prepared.missing:
            if release is None:
                await self.platform.registration.retire([function_id])
            return Deployed(function, None, prepared.missing)
        if release is None:
            self._code.remember_definition(function_id, function.file)
        file = str(function.file) if release is None else PUSHED
        registered = await self.platform.registration.register(
            prepared.definition, prepared.code, prepared.dotenv, file, release
        )
        routing = self.platform.store.functions.routing(function_id)
        return Deployed(function, registered, (), routing is not None and routing.is_paused)

    async def register_types(self, types: Sequence[TypeVersion]) -> list[TypeChange | TypeRefused]:
        """Registers event types in order, all versions of a type or none. Refused types are not changed."""
        by_name: dict[str, list[TypeVersion]] = {}
        for version in types:
            by_name.setdefault(version.name, []).append(version)
        results: list[TypeChange | TypeRefused] = []
        for versions in by_name.values():
            try:
                results += await self.platform.registration.register_types(versions)
            except TypeRefused as refused:
                results.append(refused)
        return results

    async def register_webhooks(self, found: FoundRules) -> Synchronised:
        """Stores the rules that were found. Removes other rules that came from files, unless their file is broken."""
        rules = [(webhook.rule, str(webhook.file.absolute())) for webhook in found.rules]
        return await self.webhooks.synchronise(rules, {str(problem.file.absolute()) for problem in found.problems})

    async def register_sources(self, found: FoundRules) -> Synchronised:
        """Stores the sources that were found. Removes other sources that came from files, as `register_webhooks`."""
        sources = [(source.rule, str(source.file.absolute())) for source in found.rules]
        return await self.sources.synchronise(sources, {str(problem.file.absolute()) for problem in found.problems})

    async def retire_others(self, functions: Sequence[LoadedFunction], errors: Sequence[LoadError]) -> list[str]:
        """Retires all live functions except these. Functions beside definitions that cannot be loaded keep their last
        version. Returns the ids of the retired functions."""
        loaded = {function.definition.id for function in functions}
        wrong = {problem.file.absolute() for error in errors for problem in error.problems}
        broken = {file.parent for file in wrong}

        def is_gone(file: Path) -> bool:
            return file.parent not in broken and wrong.isdisjoint(file.parents)

        live = self.platform.store.functions.live().items()
        others = [f for f, file in live if f not in loaded and is_gone(Path(file).absolute())]
        if others:
            await self.platform.registration.retire(others)
        return others


@asynccontextmanager
async def open_server(settings: ServerSettings, clock: Clock | None = None) -> AsyncIterator[LocalServer]:
    """Opens the database, continues the runs, and closes it in order when the context ends.

    If the task was cancelled more than once, running steps get no grace period. Raises lock.InUse,
    schema.DatabaseTooNew, step_user.CannotBecome, code.check.CodeLost."""
    make_folder(settings.database.parent)
    with exclusive(settings.database):
        store = LocalStore(settings.database, durable=settings.durable)
        _prepare_files(settings)
        code = CodeKeeper(settings.code, {name: Path(file) for name, file in store.functions.live().items()})
        runners = Runners(
            no_containers=settings.no_containers,
            code=code,
            user=settings.step_user,
            database=lambda: database_name(store.connection),
            compiled=settings.compiled,
        )
        runners.faktory.is_served = settings.serves_faktory
        platform = LocalPlatform(
            store,
            runners,
            settings.code,
            clock or Clock(),
            Settings(
                settings.parallelism,
                settings.env,
                settings.secret,
                public_url=settings.public_url or DEFAULT_URL,
                http_slots=settings.http_slots,
            ),
        )
        duty = asyncio.create_task(platform.wal.keep_small(store.connection, platform.exclusively))
        try:
            await _check_code(store, code, settings)
            await platform.start()
            server = LocalServer(platform, runners, code, Queries(settings.database), settings)
            try:
                yield server
            finally:
                await server.sources.close()
        finally:
            duty.cancel()
            task = asyncio.current_task()
            is_urgent = task is not None and task.cancelling() > 1
            await platform.close(0.0 if is_urgent else settings.grace_s)


def _prepare_files(settings: ServerSettings) -> None:
    """Sets the modes of the server's files. Requires the lock on the database. Raises CannotBecome."""
    user = settings.step_user
    make_code_folder(settings.code)
    for warning in make_private(settings.database, settings.code, user.gid if user else None):
        log.warning("%s", warning)
    if user is not None:
        open_code(settings.database, settings.code, user.gid)
        check_access(user, settings.code)
        if reason := python_warning(user):
            log.warning("%s", reason)


async def _check_code(store: LocalStore, code: CodeKeeper, settings: ServerSettings) -> None:
    needed = needed_versions(store.connection)
    await asyncio.to_thread(check_code, needed, code, settings.paths, may_be_lost=settings.code_may_be_lost)
