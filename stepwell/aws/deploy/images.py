"""The images of container steps: built and pushed from a Dockerfile, or named in the definition.

The registry decides whether an image exists, so an image is built once for all machines. The image's configuration is
read from the registry too, without a pull: the adapter wraps the image's program, so a push must know it.
"""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from stepwell.aws.deploy.oci import (
    ImageConfig,
    Reference,
    Unreadable,
    image_config,
    is_ecr,
    is_on_this_machine,
    registry_login,
)
from stepwell.aws.resources import Resources
from stepwell.project.code import StepCode
from stepwell.project.code_copies import materialise, remove
from stepwell.project.container_engine import NoEngine, find_engine, last_line
from stepwell.project.convention import dockerfile

Print = Callable[[str], None]  # receives the lines that docker or podman prints
_GIVE_ENTRYPOINT = "set `entrypoint` in the step's runtime to the program to run"


class ImageError(Exception):
    """A step's image cannot be used. The message gives the reason and the fix."""


@dataclass(frozen=True, slots=True)
class Image:
    reference: str
    command: tuple[str, ...]  # entrypoint and arguments
    architecture: str  # x86_64 or arm64


def named_image(reference: str, entrypoint: tuple[str, ...] | None) -> Image:
    """An image that is in a registry already. `entrypoint` replaces the image's own. Raises ImageError."""
    try:
        config = image_config(reference)
    except Unreadable as reason:
        if entrypoint is None:
            raise ImageError(f"cannot read the entrypoint of {reference}: {reason}; {_GIVE_ENTRYPOINT}") from reason
        return Image(reference, entrypoint, "x86_64")
    if config is None:
        raise ImageError(f"there is no image {reference}; push it to its registry, or correct the name")
    return _image(reference, config, entrypoint)


def built_image(resources: Resources, code: StepCode, entrypoint: tuple[str, ...] | None, log: Print) -> Image:
    """The image of a step's Dockerfile, built and pushed if the environment's repository does not have it.

    Raises ImageError, CodeError.
    """
    file = dockerfile(code.folder).name
    reference = f"{resources.repository}:{code.hash}"
    try:
        config = image_config(reference)
        if config is None:
            _build_and_push(reference, code, file, log)
            config = image_config(reference)
    except Unreadable as reason:
        raise ImageError(f"cannot read the image {reference}: {reason}") from reason
    if config is None:
        raise ImageError(f"the registry accepted the image {reference}, but does not list it; push again")
    return _image(reference, config, entrypoint)


def _image(reference: str, config: ImageConfig, entrypoint: tuple[str, ...] | None) -> Image:
    """`entrypoint` replaces the image's ENTRYPOINT and CMD, as `--entrypoint` does with docker and podman."""
    command = entrypoint if entrypoint is not None else config.entrypoint + config.command
    if not command:
        raise ImageError(f"the image {reference} has neither ENTRYPOINT nor CMD; {_GIVE_ENTRYPOINT}")
    if config.architecture not in ("x86_64", "arm64"):
        raise ImageError(f"the image {reference} is for {config.architecture}; build it for x86_64 or arm64")
    return Image(reference, command, config.architecture)


# --- building --------------------------------------------------------------------------------------------------------


def _build_and_push(reference: str, code: StepCode, file: str, log: Print) -> None:
    try:
        engine = find_engine()
    except NoEngine as reason:
        raise ImageError(f"{reason}; to build {code.folder}, install and start docker or podman") from None
    host = Reference.parse(reference).host
    with tempfile.TemporaryDirectory() as scratch:
        context = materialise(code, Path(scratch))  # without ignored files, as on the local server
        try:
            _run([engine, "build", "-t", reference, "-f", str(context / file), str(context)], log)
        finally:
            remove(context)
    # docker uses plain HTTP for a registry on localhost by itself
    insecure = ["--tls-verify=false"] if is_on_this_machine(host) and Path(engine).name == "podman" else []
    if is_ecr(host):
        user, password = registry_login(host)
        _run([engine, "login", "--username", user, "--password-stdin", host], log, password)
    _run([engine, "push", *insecure, reference], log)


def _run(argv: list[str], log: Print, stdin: str | None = None) -> None:
    """Runs a command of docker or podman, and passes each printed line to `log`. Raises ImageError."""
    process = subprocess.Popen(
        argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    )
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        process.stdin.write(stdin or "")
        process.stdin.close()
        line = ""
        for line in process.stdout:
            log(line.rstrip("\n"))
    if process.returncode != 0:
        engine, command = Path(argv[0]).name, argv[1]
        raise ImageError(f"{engine} {command} failed: {last_line(line.encode())}")
