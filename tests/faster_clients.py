"""Makes the creation of boto3 clients a third faster: tests create thousands, each in a session of its own.

The parts that all clients of a service share are made once per process: the model, the methods of the class, and the
rules of the endpoints. botocore does not change them afterwards.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import botocore.regions
import botocore.session
from botocore.client import ClientCreator
from botocore.endpoint_provider import EndpointProvider
from botocore.hooks import NodeList, _PrefixTrie


def turn_on() -> None:
    """Patches botocore. Raises an error if a new botocore has renamed what is patched."""
    assert botocore.regions.EndpointProvider is EndpointProvider
    assert callable(_PrefixTrie._recursive_copy)
    botocore.session.create_loader = functools.cache(botocore.session.create_loader)
    load: Callable[..., Any] = ClientCreator._load_service_model
    methods: Callable[..., dict[str, Any]] = ClientCreator._create_methods
    ClientCreator._load_service_model = _once(load, lambda creator, *named: (creator._loader, *named))
    ClientCreator._create_methods = _copies(_once(methods, lambda _, model: model))
    botocore.regions.EndpointProvider = _once(EndpointProvider, _rules)
    _PrefixTrie._recursive_copy = _copied


def _once(make: Callable[..., Any], key_of: Callable[..., Any]) -> Callable[..., Any]:
    made: dict[Any, Any] = {}
    read = []  # keeps the objects alive, because a key can be an object's address

    def get(*arguments: Any, **named: Any) -> Any:
        key = key_of(*arguments, **named)
        if key not in made:
            read.append((arguments, named))
            made[key] = make(*arguments, **named)
        return made[key]

    return get


def _copies(get: Callable[..., dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Returns copies, because handlers of the event `creating-client-class` add methods to the result."""
    return lambda *arguments: dict(get(*arguments))


def _rules(ruleset_data: Any, partition_data: Any, excluded_params: Any = None) -> Any:
    """The key of endpoint rules. The loader caches what it reads, so equal rules are the same object."""
    return id(ruleset_data), id(partition_data), frozenset(excluded_params or ())


def _copied(_: _PrefixTrie, node: dict[str, Any]) -> dict[str, Any]:
    """Copies a tree of event handlers: the nodes and lists are new, the handlers are the same."""
    copied = {}
    for key, value in node.items():
        if isinstance(value, NodeList):
            copied[key] = NodeList(value.first[:], value.middle[:], value.last[:])
        else:
            copied[key] = _copied(_, value) if isinstance(value, dict) else value
    return copied
