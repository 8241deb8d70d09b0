"""A step as a Lambda: the function's settings, and the code as a zip.

The same definition and code give the same name and the same bytes, on every machine. Settings of the environment
(layers, keys, the outcomes queue) are not included, so that they can change without a new version.
"""

from __future__ import annotations

import hashlib
import math
import os
import re
import stat
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import orjson

from stepwell.aws.deploy.runtimes import (
    PackagingError,
    architecture,
    check_interpreter,
    handler_runtime,
    program_runtime,
)
from stepwell.aws.naming import code_key, dotenv_parameter, function_name, secret_parameter
from stepwell.aws.resources import Resources
from stepwell.core.plan import Step
from stepwell.project.code import CodeError, CodeFile, StepCode, dotenv
from stepwell.project.convention import handler_file

PROGRAM, HANDLER = "program", "handler"  # layouts of a zip: code in step/, or at the root
VALUES_HASH = "STEPWELL_VALUES_HASH"
LONGEST_MS = 15 * 60 * 1000
_WRAPPER = "/opt/bootstrap"
_MEMORY = 128  # MB; Lambda's default
_LARGEST = 250 * 1024 * 1024  # bytes, unpacked, with all layers: Lambda's limit
_ADAPTER = 16 * 1024 * 1024  # bytes, reserved for the adapter's layer
_LARGEST_VARIABLES = 4096
_LARGEST_DOTENV = 8192
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of the zip format; constant, so that zips are reproducible
_CHUNK = 1024 * 1024
_RESERVED = re.compile(
    r"AWS_(DEFAULT_)?REGION|AWS_EXECUTION_ENV|AWS_LAMBDA_.*|AWS_ACCESS_KEY(_ID)?|AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN"
    r"|LAMBDA_(TASK_ROOT|RUNTIME_DIR)|STEPWELL_.*"
)


@dataclass(frozen=True, slots=True)
class StepLambda:
    function_id: str
    step_id: str
    code: StepCode
    layout: str
    runtime: str
    handler: str
    architecture: str
    memory: int
    timeout_ms: int
    command: tuple[str, ...] | None
    env: tuple[tuple[str, str], ...]
    dotenv: str | None  # JSON, the content of the SSM parameter
    secrets: tuple[str, ...]
    ephemeral_storage: int | None = None  # MB of /tmp; None: Lambda's default
    layers: tuple[str, ...] = ()  # ARNs, without the adapter's
    vpc: bool = False
    tracing: bool | None = None  # None: the environment's setting
    module: str | None = None  # JSON, the task of the process that runs a WebAssembly module

    @property
    def hash(self) -> str:
        """A hash of everything except the values of `.env` and of secrets.

        Settings that a step does not have are left out, so that a new setting in Stepwell changes no existing hash.
        """
        fields = {
            "function": self.function_id,
            "code": self.code.hash,
            "layout": self.layout,
            "runtime": self.runtime,
            "handler": self.handler,
            "architecture": self.architecture,
            "memory": self.memory,
            "timeout": self.timeout_ms,
            "command": self.command,
            "env": self.env,
            "dotenv": self.step_id if self.dotenv is not None else None,
            "secrets": self.secrets,
        }
        optional: dict[str, object] = {
            "storage": self.ephemeral_storage,
            "layers": self.layers or None,
            "vpc": self.vpc or None,
            "tracing": self.tracing,
            "module": self.module,
        }
        fields |= {name: value for name, value in optional.items() if value is not None}
        return hashlib.sha256(orjson.dumps(fields, option=orjson.OPT_SORT_KEYS)).hexdigest()

    def name(self, env: str) -> str:
        return function_name(env, self.function_id, self.hash)

    @property
    def code_key(self) -> str:
        return code_key(self.code.hash, self.layout)

    @property
    def timeout_s(self) -> int:
        """The Lambda's timeout in seconds. Programs get 2 s more: the adapter stops them, and then reports it."""
        return min(900, math.ceil(self.timeout_ms / 1000) + (2 if self.command else 0))

    @property
    def has_values(self) -> bool:
        return self.dotenv is not None or bool(self.secrets)

    def parameters(self, env: str) -> list[str]:
        """The names of the SSM parameters with the step's `.env` and secrets."""
        dotenv = [dotenv_parameter(env, self.function_id, self.step_id)] if self.dotenv is not None else []
        return [*dotenv, *(secret_parameter(env, name) for name in self.secrets)]

    def variables(self, env: str) -> dict[str, str]:
        """The Lambda's environment variables, without the hash of the values in SSM."""
        found = {**dict(self.env), "STEPWELL_TIMEOUT_MS": str(self.timeout_ms)}
        if self.command is not None:
            found["STEPWELL_COMMAND"] = orjson.dumps(self.command).decode()
        if self.module is not None:
            found |= {"STEPWELL_MODULE": self.module, "STEPWELL_DECLARED": " ".join(name for name, _ in self.env)}
        if self.runtime != "provided.al2023":
            found["AWS_LAMBDA_EXEC_WRAPPER"] = _WRAPPER
        if self.has_values:
            dotenv = dotenv_parameter(env, self.function_id, self.step_id) if self.dotenv is not None else None
            secrets = {name: secret_parameter(env, name) for name in self.secrets}
            found["STEPWELL_VALUES"] = orjson.dumps({"dotenv": dotenv, "secrets": secrets}).decode()
        return found


def step_lambda(function_id: str, step: Step, code: StepCode | None) -> StepLambda:
    """The Lambda of a step of runtime `lambda`. The step has a command (`LoadedFunction.normalised`) or a handler.

    Raises PackagingError, CodeError.
    """
    check_timeout(step)
    if code is None:
        raise PackagingError("the step has no code; give it a `path`")
    handler = step.runtime.handler
    if handler is not None:
        layout, (runtime, entry), command = HANDLER, _handler(handler, code), None
    else:
        command = step.runtime.command or ()
        layout, runtime, entry = PROGRAM, program_runtime(command, code), "stepwell.program"
    check_interpreter(runtime, code)
    check_size(code)
    check_variables(step)
    return StepLambda(
        function_id=function_id,
        step_id=step.id,
        code=code,
        layout=layout,
        runtime=runtime,
        handler=entry,
        architecture=architecture(command, code, step.runtime.architecture),
        memory=step.runtime.memory or _MEMORY,
        timeout_ms=step.timeout_ms,
        command=command,
        env=step.env,
        dotenv=dotenv_content(code),
        secrets=tuple(sorted(step.secrets)),
        ephemeral_storage=step.runtime.ephemeral_storage,
        layers=step.runtime.layers,
        vpc=step.runtime.vpc,
        tracing=step.runtime.tracing,
    )


def check_place(step: StepLambda, resources: Resources) -> None:
    """Raises PackagingError if the environment lacks a network for the step, or a layer is in another region."""
    if step.vpc and not resources.step_subnets:
        raise PackagingError(
            "it has `vpc: true`, but this environment has no network for steps; deploy the environment with"
            " -c step_subnets=subnet-...,subnet-... -c step_security_groups=sg-..., or remove `vpc`"
        )
    for layer in step.layers:
        region = layer.split(":")[3]
        if region != resources.region and not resources.region.startswith("${"):  # a CDK token is unknown here
            raise PackagingError(f"layer {layer} is in {region}, but this environment is in {resources.region}")


def is_reserved(variable: str) -> bool:
    """Whether Lambda or Stepwell reserves this name of an environment variable."""
    return _RESERVED.fullmatch(variable) is not None


def check_timeout(step: Step) -> None:
    """Raises PackagingError if the step's timeout is longer than a Lambda may run. `http` steps run in a Lambda too."""
    if step.timeout_ms > LONGEST_MS:
        raise PackagingError("the timeout is over 15m, the most that Lambda allows; shorten it, or use docker")


def dotenv_content(code: StepCode) -> str | None:
    """The `.env` beside the code as JSON, for an SSM parameter. None if there is no `.env`, or it is empty.

    Raises PackagingError, CodeError.
    """
    values = dotenv(code.folder)
    if not values:
        return None
    content = orjson.dumps(values, option=orjson.OPT_SORT_KEYS).decode()
    if len(content.encode()) > _LARGEST_DOTENV:
        raise PackagingError("the .env has more than 8 KB, the limit of a parameter; use secrets for large values")
    return content


def _handler(handler: str, code: StepCode) -> tuple[str, str]:
    """The runtime, and the handler in Lambda's syntax: `folder/module.function`."""
    file = handler_file(code.folder, handler)
    relative = file.relative_to(code.folder).as_posix()
    if relative not in {found.path for found in code.files}:
        raise PackagingError(f"the handler's file {relative} is not part of the step's code; correct its path")
    module = relative.removesuffix("/__init__.py").removesuffix(file.suffix)
    return handler_runtime(file), f"{module}.{handler.rpartition('.')[2]}"


def check_size(code: StepCode, reserved: int = 0) -> None:
    size, most = sum((code.folder / file.path).lstat().st_size for file in code.files), _LARGEST - _ADAPTER - reserved
    if size > most:
        raise PackagingError(
            f"the code has {size / 1024 / 1024:.0f} MB, and Lambda takes {most / 1024 / 1024:.0f} MB;"
            " exclude files with .stepwellignore, or use docker"
        )


def check_variables(step: Step) -> None:
    for name, _ in step.env:
        if is_reserved(name):
            raise PackagingError(f"the variable {name} is reserved by Lambda or Stepwell; rename it")
        if not re.fullmatch(r"[A-Za-z]\w+", name):
            raise PackagingError(
                f"Lambda rejects the variable {name}: names have two characters or more and begin with a letter;"
                " set it in .env instead"
            )
    if sum(len(name.encode()) + len(value.encode()) for name, value in step.env) > _LARGEST_VARIABLES - 1024:
        raise PackagingError("the env has more than 3 KB, Lambda's limit; move large values to .env")


# --- zips ------------------------------------------------------------------------------------------------------------


def write_zip(code: StepCode, layout: str, to: BinaryIO, more: Mapping[str, bytes] | None = None) -> None:
    """Adds the code and `more` files to a zip, which may be empty. Raises CodeError if a file has changed since the
    code was hashed."""
    prefix = "" if layout == HANDLER else "step/"
    with zipfile.ZipFile(to, "a", zipfile.ZIP_DEFLATED) as archive:
        for file in code.files:
            try:
                digest = _add(archive, prefix, code.folder / file.path, file)
            except (FileNotFoundError, NotADirectoryError):
                digest = None
            except UnicodeEncodeError:
                raise CodeError(f"the file name {file.path!r} is not UTF-8; rename it") from None
            if digest != file.digest:
                raise CodeError(f"{code.folder / file.path} changed while it was packed; push again")
        for name, content in sorted((more or {}).items()):
            add_content(archive, name, content, compresslevel=1)  # a large file, packed for every step


def add_content(archive: zipfile.ZipFile, name: str, content: bytes, compresslevel: int) -> None:
    info = zipfile.ZipInfo(name, _DATE)
    info.create_system, info.compress_type = 3, zipfile.ZIP_DEFLATED
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    archive.writestr(info, content, compresslevel=compresslevel)


def _add(archive: zipfile.ZipFile, prefix: str, path: Path, file: CodeFile) -> bytes:
    """Adds one file to the zip, and returns the digest of its content. Everybody may read it, as Lambda runs as
    another user."""
    info = zipfile.ZipInfo(prefix + file.path, _DATE)
    info.create_system = 3  # Unix: the upper 16 bits of `external_attr` are the mode
    info.compress_type = zipfile.ZIP_DEFLATED
    if file.kind == "l":
        text = os.fsencode(path.readlink())
        info.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(info, text)
        return hashlib.sha256(text).digest()
    info.external_attr = (stat.S_IFREG | (0o755 if file.kind == "x" else 0o644)) << 16
    digest = hashlib.sha256()
    with path.open("rb") as source, archive.open(info, "w") as to:
        while chunk := source.read(_CHUNK):
            digest.update(chunk)
            to.write(chunk)
    return digest.digest()
