"""A WebAssembly step as a Lambda: Python with wasmtime, which the step adapter starts and keeps.

The package contains wasmtime for the Lambda's processor. It also contains the compiled module, if this machine has the
same processor; otherwise the module is compiled when the Lambda starts.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import platform
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import BinaryIO

import orjson

from stepwell.aws.deploy.packaging import (
    StepLambda,
    add_content,
    check_size,
    check_timeout,
    check_variables,
    dotenv_content,
    write_zip,
)
from stepwell.aws.deploy.runtimes import PYTHON, PackagingError
from stepwell.aws.deploy.shared_libraries import without_symbols
from stepwell.core.plan import Step
from stepwell.core.run.module_outcome import DEFAULT_MEMORY
from stepwell.project.cache_folder import cache
from stepwell.project.code import StepCode
from stepwell.project.extras import NEEDS_WASMTIME
from stepwell.project.wasm_module import NAME

_MB = 1024 * 1024
_BESIDE_MEMORY = 256  # MB of the Lambda, besides the module's memory
_RESERVED = 64 * _MB  # bytes of the package: wasmtime, and the compiled module
_SCRIPTS = ("wasm_lambda_worker.py", "wasm_worker.py", "python_worker.py", "python_marshal.py")
_RUNNERS = Path(__file__).parents[2] / "local" / "runners"
_PLATFORMS = {"x86_64": "x86_64", "arm64": "aarch64"}
_TARGETS = {"x86_64": "x86_64-unknown-linux-gnu", "arm64": "aarch64-unknown-linux-gnu"}
_LONGEST_S = 300.0
_RUNTIME = "1"  # changes when the content of `_runtime` changes
_COMPILE = """
import sys
from wasmtime import Config, Engine, Module
config = Config()
config.consume_fuel, config.wasm_threads, config.target = sys.argv[2] == "fuel", False, sys.argv[3]
sys.stdout.buffer.write(Module.from_file(Engine(config), sys.argv[1]).serialize())
"""


def module_lambda(function_id: str, step: Step, code: StepCode | None) -> StepLambda:
    """The Lambda of a step of runtime `wasm`. Raises PackagingError, CodeError."""
    check_timeout(step)
    if code is None:
        raise PackagingError("the step has no code; give it a `path`")
    check_size(code, _RESERVED)
    check_variables(step)
    runtime = step.runtime
    memory, module = runtime.memory or DEFAULT_MEMORY, runtime.module or NAME
    task = {"module": module, "memory": memory * _MB, "fuel": runtime.fuel}
    architecture = runtime.architecture or "x86_64"
    made_of = f"{module}\0{runtime.fuel is not None}\0{architecture}\0{_version()}\0".encode()
    made_of += b"\0".join(_scripts().values())
    return StepLambda(
        function_id=function_id,
        step_id=step.id,
        code=code,
        layout=f"wasm-{hashlib.sha256(made_of).hexdigest()[:16]}",
        runtime=PYTHON,
        handler="stepwell.program",
        architecture=architecture,
        memory=memory + _BESIDE_MEMORY,
        timeout_ms=step.timeout_ms,
        command=("python3", "wasm_lambda_worker.py"),
        env=step.env,
        dotenv=dotenv_content(code),
        secrets=tuple(sorted(step.secrets)),
        module=orjson.dumps(task).decode(),
    )


def write_package(step: StepLambda, to: BinaryIO) -> None:
    """Writes the zip of a step's Lambda to an empty file, which can be read. Raises PackagingError, CodeError."""
    if step.module:
        with _runtime(step.architecture).open("rb") as runtime:
            shutil.copyfileobj(runtime, to)
    write_zip(step.code, step.layout, to, _files(step) if step.module else None)


def _files(step: StepLambda) -> dict[str, bytes]:
    """What a package has besides the step's code and wasmtime."""
    task = orjson.loads(step.module or "{}")
    files = {f"wasm/{name}": content for name, content in _scripts().items()}
    if platform.machine() == _PLATFORMS[step.architecture]:
        fuel = "none" if task["fuel"] is None else "fuel"
        files["wasm/module.cwasm"] = _compiled(step.code.folder / task["module"], fuel, _TARGETS[step.architecture])
    return files


def _scripts() -> dict[str, bytes]:
    return {name: (_RUNNERS / name).read_bytes() for name in _SCRIPTS}


def _compiled(module: Path, fuel: str, target: str) -> bytes:
    command = [sys.executable, "-I", "-c", _COMPILE, str(module), fuel, target]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=_LONGEST_S)
    except subprocess.TimeoutExpired:
        raise PackagingError(f"{module.name} was not compiled within {_LONGEST_S:g} s; make it smaller") from None
    if done.returncode:
        reason = done.stderr.decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise PackagingError(f"{module.name} cannot be compiled: {reason}")
    return done.stdout


def _version() -> str:
    try:
        return importlib.metadata.version("wasmtime")
    except importlib.metadata.PackageNotFoundError:
        raise PackagingError(NEEDS_WASMTIME) from None


def _runtime(architecture: str) -> Path:
    """A zip with wasmtime for a processor. Made once, since to compress it takes 2 s. Raises PackagingError."""
    wheel = _wheel(architecture)
    runtime = wheel.with_name(f"runtime-{_RUNTIME}.zip")
    if not runtime.exists():
        with tempfile.TemporaryDirectory(dir=wheel.parent, prefix=".new-") as folder:
            new = Path(folder, runtime.name)
            with zipfile.ZipFile(wheel) as source, zipfile.ZipFile(new, "w") as to:
                for name in sorted(source.namelist()):
                    if name.startswith("wasmtime/"):
                        add_content(to, f"wasm/{name}", without_symbols(source.read(name)), compresslevel=6)
            new.replace(runtime)
    return runtime


def _wheel(architecture: str) -> Path:
    """The wheel of wasmtime for a processor, downloaded once by pip. Raises PackagingError."""
    version, machine = _version(), _PLATFORMS[architecture]
    folder = cache() / f"wasmtime-{version}-{machine}"
    if found := list(folder.glob("*.whl")):
        return found[0]
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
    command += ["--only-binary=:all:", "--python-version=3.13", f"--platform=manylinux2014_{machine}"]
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
        command += [f"--platform=manylinux_2_28_{machine}", f"--dest={new}", f"wasmtime=={version}"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = done.stderr.strip().rpartition("\n")[2]
            raise PackagingError(f"pip cannot download wasmtime {version} for {architecture}: {reason}")
        (made,) = Path(new).glob("*.whl")
        return made.replace(folder / made.name)
