"""Container images, built or pulled once and shared by all attempts."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import orjson

from stepwell.local.runners.job import CannotRun, Log
from stepwell.local.runners.process import Process, Program
from stepwell.local.runners.program import last_line
from stepwell.project import container_engine

# Names, and prefixes of names, of variables that a container client reads itself.
READ_BY_CLIENTS = (
    *("DOCKER_", "BUILDX_", "CONTAINER", "_CONTAINER", "PODMAN", "BUILDAH", "BUILDKIT", "STORAGE_", "REGISTRY_AUTH"),
    *("XDG_", "DBUS_", "LD_", "GO", "SSL_", "SSH_AUTH_SOCK", "PATH", "HOME", "TMPDIR", "USER", "LANG", "LC_"),
    *("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "http_proxy", "https_proxy", "no_proxy"),
)
_READ_BY_HELPERS = ("AWS_", "AZURE_", "CLOUDSDK_")  # read by programs that provide credentials of registries


def client_environment() -> dict[str, str]:
    """The part of the server's environment that a client needs. Steps of the same user can read the client's one."""
    names = (*READ_BY_CLIENTS, *_READ_BY_HELPERS)
    return {name: value for name, value in os.environ.items() if name.startswith(names)}


class NoImage(Exception):
    """An image could not be built or pulled. Another attempt may succeed."""


def find_engine() -> str:
    """The path of docker or podman. Raises CannotRun with the fix."""
    try:
        return container_engine.find_engine()
    except container_engine.NoEngine as reason:
        cure = "install and start docker or podman, or start with --no-containers"
        raise CannotRun(f"{reason}; {cure}") from None


async def run_engine(argv: Sequence[str], receive: Callable[[str, bytes], None]) -> int:
    """Runs a command of the engine to the end, and returns the exit code. Kills it if this is cancelled."""
    ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    process = Process(Program(argv, None, client_environment()), receive, ended.set_result)
    try:
        return await asyncio.shield(ended)
    except asyncio.CancelledError:
        process.kill()
        await ended
        raise


_MOST_PRINTED = 64 * 1024


class Image:
    """An image that is built or pulled. With `dockerfile` it is built, otherwise pulled."""

    def __init__(self, engine: str, tag: str, dockerfile: Path | None) -> None:
        self._engine, self._tag, self._dockerfile = engine, tag, dockerfile
        self._logs: list[Log] = []
        self._printed = bytearray()
        self._task = asyncio.get_running_loop().create_task(self._make())

    async def command(self, log: Log) -> tuple[str, ...]:
        """Waits for the image, and returns its CMD. `log` receives the output of the build. Raises NoImage, OSError."""
        self._logs.append(log)
        if self._printed and not self._task.done():  # for an attempt that comes later
            log("system", bytes(self._printed))
        try:
            return await asyncio.shield(self._task)
        finally:
            self._logs.remove(log)

    async def _make(self) -> tuple[str, ...]:
        found = await self._inspect()
        if found is None:
            make = ["pull", self._tag]
            if self._dockerfile is not None:
                make = ["build", "-t", self._tag, "-f", str(self._dockerfile), str(self._dockerfile.parent)]

            def receive(_: str, piece: bytes) -> None:
                self._printed += piece
                del self._printed[:-_MOST_PRINTED]
                for log in self._logs:
                    log("system", piece)

            code = await run_engine([self._engine, *make], receive)
            found = await self._inspect() if code == 0 else None
            if found is None:
                raise NoImage(f"{Path(self._engine).name} {make[0]} failed: {last_line(bytes(self._printed))}")
        return found

    async def _inspect(self) -> tuple[str, ...] | None:
        printed = bytearray()

        def receive(stream: str, piece: bytes) -> None:
            if stream == "stdout":
                printed.extend(piece)

        if await run_engine([self._engine, "image", "inspect", self._tag], receive) != 0:
            return None
        config = orjson.loads(printed)[0].get("Config") or {}
        return tuple(config.get("Cmd") or ())

    async def close(self) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
