"""The images of container steps, as push needs them: built and pushed if a folder has a Dockerfile, else used as named.

One rule: an image counts by what its registry says of it. So what is there is not built again, on any machine, and the
program to run (the adapter wraps it, so it must be known) is read without pulling the image.
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

Print = Callable[[str], None]  # takes the lines that the engine prints
_GIVE_ENTRYPOINT = "give the program to run as `entrypoint` in the step's runtime"


class ImageError(Exception):
    """A step's image cannot be used; the message says why, and the cure."""


@dataclass(frozen=True, slots=True)
class Image:
    reference: str
    command: tuple[str, ...]  # what it runs: entrypoint and arguments
    architecture: str  # x86_64 or arm64


def named_image(reference: str, entrypoint: tuple[str, ...] | None) -> Image:
    """An image that is in a registry already. `entrypoint`: what to run instead of its own. Raises ImageError."""
    try:
        config = image_config(reference)
    except Unreadable as reason:
        if entrypoint is None:
            raise ImageError(f"cannot tell what the image {reference} runs: {reason}; {_GIVE_ENTRYPOINT}") from reason
        return Image(reference, entrypoint, "x86_64")
    if config is None:
        raise ImageError(f"there is no image {reference}; push it to its registry, or correct the name")
    return _image(reference, config, entrypoint)


def built_image(resources: Resources, code: StepCode, entrypoint: tuple[str, ...] | None, log: Print) -> Image:
    """The image of a step's Dockerfile, in the environment's repository. Raises ImageError, CodeError."""
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
        raise ImageError(f"the registry took the image {reference}, and does not have it; push again")
    return _image(reference, config, entrypoint)


def _image(reference: str, config: ImageConfig, entrypoint: tuple[str, ...] | None) -> Image:
    """An entrypoint that is given replaces the image's and its arguments, as it does for docker and podman."""
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
        context = materialise(code, Path(scratch))  # without what is ignored, as on every other platform
        try:
            _run([engine, "build", "-t", reference, "-f", str(context / file), str(context)], log)
        finally:
            remove(context)
    # docker knows by itself that a registry on this machine speaks no TLS
    insecure = ["--tls-verify=false"] if is_on_this_machine(host) and Path(engine).name == "podman" else []
    if is_ecr(host):
        user, password = registry_login(host)
        _run([engine, "login", "--username", user, "--password-stdin", host], log, password)
    _run([engine, "push", *insecure, reference], log)


def _run(argv: list[str], log: Print, stdin: str | None = None) -> None:
    """Run a command of the engine; `log` gets its lines as they come. Raises ImageError."""
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
