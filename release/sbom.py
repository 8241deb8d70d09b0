"""The software bill of materials of a release: CycloneDX 1.6, https://cyclonedx.org/docs/1.6/json/."""

from __future__ import annotations

import json
from pathlib import Path

from release.environments import ReleaseFailed, run

_LIST = "from importlib.metadata import distributions; print(*sorted({d.name.lower() for d in distributions()}))"


def write_sbom(tools: Path, fresh: Path, root: Path, version: str, file: Path) -> Path:
    """Writes what the wheel brings with it: each package that its environment has, with version, licence and hashes."""
    options: list[str | Path] = ["--pyproject", root / "pyproject.toml", "--mc-type", "application"]
    formats = ["--spec-version", "1.6", "--output-format", "JSON", "--output-reproducible", "--validate"]
    run([tools / "cyclonedx-py", "environment", *options, *formats, "--output-file", file, fresh / "python"])
    document = json.loads(file.read_text("utf-8"))
    listed = {component["name"].lower() for component in document["components"]}
    missing = set(run([fresh / "python", "-c", _LIST]).split()) - listed - {"stepwell"}
    if missing:
        raise ReleaseFailed(f"the SBOM lacks {', '.join(sorted(missing))}")
    document["metadata"]["component"] |= {"version": version, "purl": f"pkg:pypi/stepwell@{version}"}
    file.write_text(json.dumps(document, indent=2) + "\n", "utf-8")
    return file
