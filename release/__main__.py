"""`make release`: builds the wheel, the sdist and the SBOM into `dist/`, and checks them in a fresh environment.

Each step prints one line. A failed check ends the command with an error. Nothing is uploaded: do that with
`build/release/tools/bin/twine upload dist/*.whl dist/*.tar.gz` after reading the output.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from release.checks import check_tree, check_version, check_wheel
from release.environments import ReleaseFailed, run, tools_environment, wheel_environment
from release.examples import run_the_first_function, run_the_readme
from release.sbom import write_sbom

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
WORK = ROOT / "build" / "release"
_Result = TypeVar("_Result")


def main() -> None:
    options = _options()
    began = time.monotonic()
    try:
        version = _release(options.allow_dirty)
    except ReleaseFailed as reason:
        sys.exit(f"failed\nNot released: {reason}")
    print(f"stepwell {version} is in {DIST.relative_to(ROOT)}/ after {time.monotonic() - began:.0f} s:")
    for file in sorted(DIST.iterdir()):
        print(f"  {file.stat().st_size / 1000:8,.0f} kB  {file.name}")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m release", description="Builds and checks a release in dist/.")
    parser.add_argument("--allow-dirty", action="store_true", help="accept changes that are not committed")
    return parser.parse_args()


def _release(allow_dirty: bool) -> str:
    version = _step("version and changelog", lambda: check_version(ROOT))
    if not allow_dirty:
        _step("clean checkout", lambda: check_tree(ROOT))
    tools = _step("tools, by locks/release.txt", lambda: tools_environment(WORK / "tools", ROOT / "locks/release.txt"))
    _step("known vulnerabilities of the locked versions", lambda: run([tools / "python", ROOT / "locks/audit.py"]))
    wheel, sdist = _step("sdist, and the wheel from it", lambda: _build(tools))
    _step("metadata", lambda: run([tools / "twine", "check", "--strict", wheel, sdist]))
    _step("contents of the wheel", lambda: check_wheel(wheel, version, ROOT))
    fresh = _step("the wheel in an empty environment", lambda: wheel_environment(WORK / "fresh", wheel, tools))
    _step("README's example with it", lambda: run_the_readme(fresh, ROOT / "examples", WORK))
    _step("a first function with it", lambda: run_the_first_function(fresh, WORK))
    sbom = _step("SBOM", lambda: write_sbom(tools, fresh, ROOT, version, DIST / f"stepwell-{version}.cdx.json"))
    _step("checksums", lambda: _write_checksums([wheel, sdist, sbom]))
    return version


def _step(name: str, do: Callable[[], _Result]) -> _Result:
    print(f"{name} ...", end=" ", flush=True)
    result = do()
    print("ok", flush=True)
    return result


def _build(tools: Path) -> tuple[Path, Path]:
    """The wheel and the sdist. The wheel is built from the sdist, so that a file which the sdist lacks is noticed."""
    shutil.rmtree(DIST, ignore_errors=True)
    run([tools / "python", "-m", "build", "--outdir", DIST, ROOT], on_path=tools, STEPWELL_REQUIRE_ADAPTER="1")
    (wheel,), (sdist,) = DIST.glob("*.whl"), DIST.glob("*.tar.gz")
    return wheel, sdist


def _write_checksums(files: Sequence[Path]) -> None:
    """In the format of `sha256sum --check`."""
    lines = [f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n" for file in files]
    (DIST / "SHA256SUMS").write_text("".join(lines))


if __name__ == "__main__":
    main()
