"""The types that a server has registered, for commands that compare with them."""

from __future__ import annotations

from typing import Any

from stepwell.cli.remote.client import Client, in_path
from stepwell.cli.ui.output import fail


def versions(client: Client) -> dict[str, list[str]]:
    """The versions of each type, the newest last."""
    return {item["name"]: [v["version"] for v in item["versions"]] for item in client.get("/v1/types")["data"]}


def schema(client: Client, name: str, version: str | None = None) -> Any:
    """The schema of one version; of the newest if none is given."""
    found = client.get(f"/v1/types/{in_path(name)}", version=version)
    if "schema" not in found:
        fail(f"{client.url} does not tell the schema of {name}; is it an older Stepwell?")
    return found["schema"]
