"""Looks up the locked versions in PyPI's database of vulnerabilities, by pip-audit. `make audit` runs it.

Exits with 1 if a locked version has a known vulnerability. Where the database cannot be reached, it prints this and
exits with 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).parents[1]
_PROBE = "https://pypi.org/pypi/pip/20.0/json"  # a version with known vulnerabilities


def main() -> int:
    if not _is_reachable():
        print("no audit: PyPI's database of vulnerabilities cannot be reached")
        return 0
    files = [*sorted((ROOT / "layers/engine").glob("*.txt")), ROOT / "locks/dev.txt", ROOT / "locks/release.txt"]
    options = [word for file in files for word in ("--requirement", str(file))]
    audit = [sys.executable, "-m", "pip_audit", "--require-hashes", "--disable-pip", "--progress-spinner", "off"]
    return subprocess.run([*audit, *options], check=False).returncode


def _is_reachable() -> bool:
    try:
        with urllib.request.urlopen(_PROBE, timeout=10) as answer:
            return bool(json.load(answer).get("vulnerabilities"))
    except (urllib.error.URLError, OSError, ValueError):
        return False


if __name__ == "__main__":
    sys.exit(main())
