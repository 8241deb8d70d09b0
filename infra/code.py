"""The code of the engine's Lambdas: `lambdas/`, the parts of `stepwell/` that they use, and layers of libraries.

Docker is not needed. Sources are copied; libraries are installed from wheels, by the lock files in `layers/engine`.
"""

from __future__ import annotations

from pathlib import Path

from aws_cdk import IgnoreMode
from aws_cdk import aws_lambda as lambda_
from constructs import Construct

from infra.settings import Settings
from layers.engine.build import NAMES, Machine, layer

ROOT = Path(__file__).parents[1]
TRACER = "tracer"  # a layer that Lambdas have only with the setting `tracing`
NOT_IN_LAMBDAS = ("cdk", "cli", "dev", "local", "testing")
"""Packages of `stepwell` that no Lambda imports; a test starts every handler without them."""
EXCLUDED = [
    "/*",
    "!/lambdas",
    "!/stepwell",
    "__pycache__",
    "*.pyc",
    *(f"/stepwell/{package}" for package in NOT_IN_LAMBDAS),
]


class EngineCode(Construct):
    def __init__(self, scope: Construct, settings: Settings) -> None:
        super().__init__(scope, "EngineCode")
        self.code = lambda_.Code.from_asset(str(ROOT), exclude=EXCLUDED, ignore_mode=IgnoreMode.GIT)
        self.architecture = lambda_.Architecture.custom(settings.architecture)
        self.runtime = lambda_.Runtime(f"python{settings.python}", lambda_.RuntimeFamily.PYTHON)
        machine = Machine(settings.architecture, settings.python)
        wanted = [name for name in NAMES if name != TRACER or settings.tracing]
        self.layers = {name: self._layer(name, machine) for name in wanted}

    def _layer(self, name: str, machine: Machine) -> lambda_.LayerVersion:
        return lambda_.LayerVersion(
            self,
            name.capitalize(),
            code=lambda_.Code.from_asset(str(layer(name, machine))),
            compatible_runtimes=[self.runtime],
            compatible_architectures=[self.architecture],
            description=f"Libraries of Stepwell's engine: {name}",
        )
