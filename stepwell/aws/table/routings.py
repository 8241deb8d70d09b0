"""The routing in a function's item: the attribute `live` is the live version, and `r` contains the rest."""

from __future__ import annotations

from stepwell.aws.table.keys import Item
from stepwell.core.routing.versions import Routing, from_json, to_json


def read_routing(item: Item) -> Routing:
    live = int(item["live"]["N"]) if "live" in item else None
    return from_json(live, item["r"]["B"] if "r" in item else None)


def routing_attributes(routing: Routing) -> Item:
    live: Item = {} if routing.live is None else {"live": {"N": str(routing.live)}}
    return {**live, "r": {"B": to_json(routing)}}
