"""A Lambda function as stored in moto, and what is needed to start it: code on disk, command line, environment.

A function sees the same as on Lambda, except that paths differ from /var/task and /opt.
"""

from __future__ import annotations

import io
import os
import shutil
import stat
import sys
import tempfile
import threading
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from moto.awslambda.models import lambda_backends

from stepwell.testing.lambdas.python_server import PYTHON_RUNTIME, can_fork

NODE_RUNTIME = Path(__file__).with_name("node_runtime.mjs")
_WRAPPER = "AWS_LAMBDA_EXEC_WRAPPER"
_DEFAULT_RETRIES = 2


class CannotStart(Exception):
    """The function has nothing that can be started. The message is Lambda's."""


@dataclass(frozen=True, slots=True)
class Code:
    """The content of a ZIP file. Two are equal if their hashes are equal."""

    sha: str
    content: bytes = field(compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Function:
    """Everything that affects a sandbox: sandboxes of equal functions are interchangeable."""

    arn: str
    runtime: str
    handler: str
    memory: int
    timeout: int
    environment: tuple[tuple[str, str], ...]
    code: Code
    layers: tuple[Code, ...]

    @property
    def name(self) -> str:
        return self.arn.split(":")[6]

    @property
    def log_group(self) -> str:
        return f"/aws/lambda/{self.name}"


@dataclass(frozen=True, slots=True)
class Destinations:
    """The ARNs that records of asynchronous invocations are sent to."""

    on_success: str | None = None
    on_failure: str | None = None
    retries: int = _DEFAULT_RETRIES


def find(account: str, region: str, name_or_arn: str, qualifier: str | None) -> tuple[Function, Destinations]:
    """Reads a function from moto. The caller must hold the lock of moto. Raises moto's UnknownFunctionException."""
    backend = lambda_backends[account][region]
    found = backend.get_function(name_or_arn, qualifier)
    layers = (backend.layers_versions_by_arn(layer["Arn"]) for layer in found.layers)
    function = Function(
        arn=":".join(found.function_arn.split(":")[:7]),
        runtime=found.run_time or "",
        handler=found.handler or "",
        memory=int(found.memory_size),
        timeout=int(found.timeout),
        environment=tuple(sorted(found.environment_vars.items())),
        code=Code(found.code_sha_256, found.code_bytes),
        layers=tuple(Code(layer.code_sha_256, layer.code_bytes) for layer in layers if layer is not None),
    )
    return function, _destinations(found)


def _destinations(found: Any) -> Destinations:
    if not found.event_invoke_config:
        return Destinations()
    config = found.event_invoke_config[-1].config  # moto appends each change
    ends = config.get("DestinationConfig", {})
    return Destinations(
        on_success=ends.get("OnSuccess", {}).get("Destination"),
        on_failure=ends.get("OnFailure", {}).get("Destination"),
        retries=int(config.get("MaximumRetryAttempts", _DEFAULT_RETRIES)),
    )


# --- on disk ---------------------------------------------------------------------------------------------------------


class Disk:
    """Unpacks code and layers, each once and read-only."""

    def __init__(self) -> None:
        self._root = tempfile.TemporaryDirectory(prefix="lambda-host-", ignore_cleanup_errors=True)
        self._unpacked: dict[tuple[str, ...], Path] = {}
        self._lock = threading.Lock()

    def task(self, function: Function) -> Path:
        """The folder with the function's code, which is /var/task on Lambda."""
        return self._unpack((function.code,))

    def opt(self, function: Function) -> Path:
        """The folder with all layers, unpacked over one another, which is /opt on Lambda."""
        return self._unpack(function.layers)

    def new_folder(self) -> Path:
        return Path(tempfile.mkdtemp(dir=self._root.name))

    def close(self) -> None:
        self._root.cleanup()

    def _unpack(self, zips: tuple[Code, ...]) -> Path:
        key = tuple(code.sha for code in zips)
        with self._lock:
            if key not in self._unpacked:
                folder = self.new_folder()
                for code in zips:
                    unpack(code.content, folder)
                _protect(folder)
                self._unpacked[key] = folder
            return self._unpacked[key]


def unpack(content: bytes, folder: Path) -> None:
    """Unpacks a ZIP file as Lambda does. Unlike `zipfile`, it keeps permissions and symbolic links."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        for entry in archive.infolist():
            mode = entry.external_attr >> 16
            path = folder / entry.filename
            if stat.S_ISLNK(mode):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.unlink(missing_ok=True)
                path.symlink_to(archive.read(entry).decode())
                continue
            archive.extract(entry, folder)
            if not entry.is_dir() and mode:
                path.chmod(stat.S_IMODE(mode))


def _protect(folder: Path) -> None:
    for where, _, files in os.walk(folder):
        for path in (Path(where), *(Path(where, name) for name in files)):
            if not path.is_symlink():
                path.chmod(path.stat().st_mode & 0o555)


# --- starting --------------------------------------------------------------------------------------------------------


def command(function: Function, task: Path, opt: Path) -> list[str]:
    """The command line that starts the function. Raises CannotStart."""
    if function.runtime.startswith("provided"):
        return [_bootstrap(task, opt)]  # these runtimes have no wrapper
    if function.runtime.startswith("python"):
        own = [
            sys.executable,
            "-P",
            str(PYTHON_RUNTIME),
            function.handler,
        ]  # -P: keeps the script's folder off the path
    elif function.runtime.startswith("nodejs"):
        own = [_node(), str(NODE_RUNTIME), function.handler]
    else:
        raise NotImplementedError(f"runtime {function.runtime!r}: the host supports python*, nodejs* and provided.*")
    found = wrapper(function, opt)
    return [found, *own] if found else own


def wrapper(function: Function, opt: Path) -> str | None:
    """The program that a managed runtime starts instead of itself, with its own command line as arguments."""
    path = dict(function.environment).get(_WRAPPER)
    return None if not path or function.runtime.startswith("provided") else _resolved(path, opt)


def is_forked(function: Function, task: Path) -> bool:
    """Whether a `PythonServer` forks the function, instead of starting a command."""
    return function.runtime.startswith("python") and can_fork(dict(function.environment), task)


def _bootstrap(task: Path, opt: Path) -> str:
    for folder in (task, opt):
        if (folder / "bootstrap").is_file():
            return str(folder / "bootstrap")
    raise CannotStart("Error: Couldn't find valid bootstrap(s): [/var/task/bootstrap /opt/bootstrap]")


def _node() -> str:
    node = shutil.which("node")
    if node is None:
        raise NotImplementedError("a function of a nodejs runtime needs node in PATH")
    return node


def _resolved(path: str, opt: Path) -> str:
    return str(opt / path.removeprefix("/opt/")) if path.startswith("/opt/") else path


def environment(function: Function, task: Path, opt: Path, tmp: Path, stream: str, api: str) -> dict[str, str]:
    """Lambda's environment variables, overridden by the function's. `api`: host and port of the Runtime API."""
    region = function.arn.split(":")[3]
    variables = {
        "PATH": _path(function, opt),
        "LD_LIBRARY_PATH": os.pathsep.join(map(str, (task, task / "lib", opt / "lib"))),
        "LANG": "en_US.UTF-8",
        "TZ": ":UTC",
        "TMPDIR": str(tmp),  # Lambda has a /tmp for each sandbox instead
        "LAMBDA_TASK_ROOT": str(task),
        "LAMBDA_RUNTIME_DIR": str(NODE_RUNTIME.parent),
        "AWS_REGION": region,
        "AWS_DEFAULT_REGION": region,
        "AWS_LAMBDA_FUNCTION_NAME": function.name,
        "AWS_LAMBDA_FUNCTION_VERSION": "$LATEST",
        "AWS_LAMBDA_FUNCTION_MEMORY_SIZE": str(function.memory),
        "AWS_LAMBDA_INITIALIZATION_TYPE": "on-demand",
        "AWS_LAMBDA_LOG_GROUP_NAME": function.log_group,
        "AWS_LAMBDA_LOG_STREAM_NAME": stream,
        "AWS_LAMBDA_RUNTIME_API": api,
        "_HANDLER": function.handler,
    }
    if function.runtime.startswith("python"):
        variables["PYTHONPATH"] = os.pathsep.join(map(str, _python_path(opt)))
    elif function.runtime.startswith("nodejs"):
        variables["NODE_PATH"] = str(opt / "nodejs" / "node_modules")
    if not function.runtime.startswith("provided"):
        variables["AWS_EXECUTION_ENV"] = f"AWS_Lambda_{function.runtime}"
    return {**variables, **dict(function.environment)}


def _path(function: Function, opt: Path) -> str:
    """PATH, with the program of a managed runtime: `python3` is this process's Python."""
    folders = ["/usr/local/bin", "/usr/bin", "/bin", str(opt / "bin")]
    if function.runtime.startswith("python"):
        folders.insert(0, str(Path(sys.executable).parent))
    elif function.runtime.startswith("nodejs"):
        folders.insert(0, str(Path(_node()).parent))
    return os.pathsep.join(folders)


def _python_path(opt: Path) -> list[Path]:
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return [opt / "python", opt / "python" / "lib" / version / "site-packages"]
