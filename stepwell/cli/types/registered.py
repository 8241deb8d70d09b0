"""Reads the types that are registered on a server, for commands that compare with them."""

from __future__ import annotations

from typing import Any

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.ui.output import fail


def versions(client: Client) -> dict[str, list[str]]:
    """The versions of each type, newest last."""
    return {item["name"]: [v["version"] for v in item["versions"]] for item in client.get("/v1/types")["data"]}


def schema(client: Client, name: str, version: str | None = None) -> Any:
    """The schema of a version; of the default version if `version` is None."""
    found = client.get(f"/v1/types/{in_path(name)}", version=version)
    if "schema" not in found:
        fail(f"{client.url} did not return the schema of {name}; the server may be an older Stepwell, so upgrade it")
    return found["schema"]
