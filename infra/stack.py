"""One environment, composed of all concerns. `Stepwell` is a construct for your own stacks, `StepwellStack` a stack.

Lambdas and commands read the environment's names and settings from a `Resources` object. The Lambdas have it in an
environment variable; commands read it from SSM.
"""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

from aws_cdk import Aws, CfnOutput, Stack
from aws_cdk import aws_iam as iam
from aws_cdk import aws_ssm as ssm
from constructs import Construct

from infra.alarms import Alarms
from infra.bus import Bus
from infra.code import ROOT, EngineCode
from infra.dashboard import Dashboard
from infra.functions import Functions
from infra.ingest import Ingest
from infra.nag import acknowledge
from infra.queues import Queues
from infra.settings import Settings
from infra.signing_keys import SigningKeys
from infra.state import INPUTS, State
from infra.steps import Containers, StepBoundary, StepLayers, parameter_arn, parameter_arns
from stepwell.aws.naming import (
    function_prefix,
    log_group,
    role_prefix,
    secrets_prefix,
    signing_keys_parameter,
    task_log_group,
)
from stepwell.aws.resources import VARIABLE, Resources, parameter
from stepwell.aws.table.keys import STATUS_INDEX
from stepwell.cdk.deployed import step_parameter, step_parameters
from stepwell.cdk.environment import bus_parameter, registrar_parameter
from stepwell.cdk.push import push_parameter, push_places
from stepwell.cdk.source import LAYERS, source_parameter


class Stepwell(Construct):
    """An environment of Stepwell. The environment's name must be unique in the account and region."""

    def __init__(self, scope: Construct, id: str, settings: Settings) -> None:
        super().__init__(scope, id)
        self.settings = settings
        self.state = State(self, settings)
        self.queues = Queues(self, settings)
        self.bus = Bus(self, settings, self.queues)
        self.layers = StepLayers(self, ROOT / "build" / "adapter")
        self.containers = Containers(self, settings, ROOT / "build" / "adapter") if settings.has_containers else None
        places = self._places()
        self.code = EngineCode(self, settings)
        self.functions = Functions(self, settings, self.code, places)
        self.functions.connect(self.queues)
        SigningKeys(self, settings, self.functions, self.state.table.table_name)
        self.ingest = Ingest(self, settings, self.functions.by_name)
        self.rules = {"events": self.bus.rule}
        if self.containers:
            self.rules["containers"] = self.bus.watch_containers(self.containers.cluster.attr_arn)
        self.step_boundary = "" if settings.permissions_boundary else self._bound_steps()
        self._publish_resources()
        self._watch()
        self._bound()
        acknowledge(self, places)

    def _places(self) -> dict[str, list[str]]:
        """The ARNs of places, by the names that `roles` uses."""
        env, here = self.settings.env, f"{Aws.REGION}:{Aws.ACCOUNT_ID}"
        aws = f"arn:{Aws.PARTITION}"
        groups = f"{aws}:logs:{here}:log-group:"
        own = self.settings.step_lambda_arns
        places = {
            "table": [self.state.table.table_arn],
            "index": [f"{self.state.table.table_arn}/index/{STATUS_INDEX}"],
            "bucket": [self.state.bucket.bucket_arn],
            "inputs": [self.state.bucket.arn_for_objects(f"{INPUTS}*")],
            "events": [self.queues.events.queue.queue_arn],
            "outcomes": [self.queues.outcomes.queue.queue_arn],
            "bus": [self.bus.bus.event_bus_arn],
            "step lambdas": [f"{aws}:lambda:{here}:function:{function_prefix(env)}*", *own],
            "step roles": [f"{aws}:iam::{Aws.ACCOUNT_ID}:role/{role_prefix(env)}*"],
            "step logs": [
                f"{groups}{log_group(function_prefix(env))}*",
                *(f"{groups}{log_group(arn.split(':')[6])}:*" for arn in own),
            ],
            "container logs": [f"{groups}{task_log_group(env, '')}*"],
            "parameters": parameter_arns(env),
            "secrets": [parameter_arn(f"{secrets_prefix(env)}*")],
            "signing keys": [parameter_arn(signing_keys_parameter(env))],
            "key": [self.settings.kms_key],
            "task definitions": [f"{aws}:ecs:{here}:task-definition/{function_prefix(env)}*"],
        }
        if self.containers:
            cluster = self.containers.cluster.ref
            places["cluster"] = [self.containers.cluster.attr_arn]
            places["tasks"] = [f"{aws}:ecs:{here}:task/{cluster}/*"]
            places["execution role"] = [self.containers.execution_role.role_arn]
        return places

    def _bound_steps(self) -> str:
        """The ARN of the permissions boundary for the roles of steps. The queue's ARN is written out in parts, because
        other ARNs are made of these parts."""
        queue = f"arn:{Aws.PARTITION}:sqs:{Aws.REGION}:{Aws.ACCOUNT_ID}:{self.queues.outcomes.queue.queue_name}"
        return StepBoundary(self, self.settings, replace(self._resources(), outcomes_queue_arn=queue)).arn

    def _publish_resources(self) -> None:
        """Passes the `Resources` to the Lambdas and to SSM. The Lambda step_http does not get the name of step_http: a
        Lambda cannot refer to itself."""
        known = replace(self._resources(), api_url=self.ingest.url, step_boundary=self.step_boundary)
        step_http = self.functions.by_name["step_http"]
        for function in self.functions.by_name.values():
            resources = known if function is step_http else replace(known, step_http=step_http.function_name)
            function.add_environment(VARIABLE, self._json(resources))
        everything = replace(known, step_http=step_http.function_name)
        env = self.settings.env
        names = push_places(everything)
        ssm.StringParameter(self, "PushPlaces", parameter_name=push_parameter(env), string_value=",".join(names))
        ssm.StringParameter(self, "Resources", parameter_name=parameter(env), string_value=self._json(everything))
        for name, value in step_parameters(everything, self.queues.outcomes.queue.queue_name).items():
            kind = {"string_value": value} if isinstance(value, str) else {"string_list_value": list(value)}
            made = ssm.StringParameter if isinstance(value, str) else ssm.StringListParameter
            made(self, f"Steps-{name}", parameter_name=step_parameter(env, name), **kind)
        for name, text in self._for_sources(everything).items():
            ssm.StringParameter(self, f"Sources-{name}", parameter_name=source_parameter(env, name), string_value=text)
        registrar = self.functions.by_name["register"].function_arn
        for id, name, arn in (
            ("BusArn", bus_parameter(env), self.bus.bus.event_bus_arn),
            ("RegistrarArn", registrar_parameter(env), registrar),
        ):
            ssm.StringParameter(self, id, parameter_name=name, string_value=arn)

    def _for_sources(self, resources: Resources) -> dict[str, str]:
        """The values that `stepwell.cdk.Source` needs in other stacks. Sources send to the bus in any case."""
        layers = {f"layer-{name}": self.code.layers[name].layer_version_arn for name in LAYERS}
        return {
            "resources": self._json(replace(resources, ingest="bus")),
            "table-arn": self.state.table.table_arn,
            "runtime": self.code.runtime.name,
            "architecture": self.code.architecture.name,
            **layers,
        }

    def _resources(self) -> Resources:
        settings, events, outcomes = self.settings, self.queues.events.queue, self.queues.outcomes.queue
        resources = Resources(
            env=settings.env,
            region=Aws.REGION,
            account=Aws.ACCOUNT_ID,
            table=self.state.table.table_name,
            bus=self.bus.bus.event_bus_name,
            events_queue=events.queue_url,
            events_queue_arn=events.queue_arn,
            outcomes_queue=outcomes.queue_url,
            outcomes_queue_arn=outcomes.queue_arn,
            bucket=self.state.bucket.bucket_name,
            step_http="",
            ingest=settings.ingest,
            layers=self.layers.arns,
            permissions_boundary=settings.permissions_boundary,
            kms_key=settings.kms_key,
            retention_days=settings.retention_days,
            event_age_s=settings.event_age_s,
            step_subnets=tuple(settings.step_network[0]),
            step_security_groups=tuple(settings.step_network[1]),
            tracing=settings.tracing,
            step_concurrency=settings.step_concurrency,
        )
        containers = self.containers
        if containers is None:
            return resources
        return replace(
            resources,
            cluster=containers.cluster.attr_arn,
            subnets=tuple(containers.subnets),
            security_groups=(containers.security_group.attr_group_id,),
            execution_role=containers.execution_role.role_arn,
            adapter_images={name: image.image_uri for name, image in containers.images.items()},
            capacity="FARGATE_SPOT" if settings.spot else "FARGATE",
            repository=containers.repository.repository_uri,
        )

    def _json(self, resources: Resources) -> str:
        return Stack.of(self).to_json_string(json.loads(resources.to_json()))

    def _watch(self) -> None:
        if self.settings.alarms:
            alarms = Alarms(self, self.settings, self.queues, self.state, self.functions)
            alarms.watch_bus(self.bus, self.rules)
            alarms.watch_api(self.ingest)
        if self.settings.dashboard:
            Dashboard(self, self.settings, self.queues, self.state, self.functions, self.ingest)

    def _bound(self) -> None:
        boundary = self.settings.permissions_boundary
        if boundary:
            policy = iam.ManagedPolicy.from_managed_policy_arn(self, "Boundary", boundary)
            iam.PermissionsBoundary.of(self).apply(policy)


class StepwellStack(Stack):
    def __init__(self, scope: Construct, settings: Settings, **options: Any) -> None:
        super().__init__(
            scope, f"Stepwell-{settings.env}", description=f"Stepwell, environment {settings.env}", **options
        )
        self.stepwell = Stepwell(self, "Stepwell", settings)
        outputs = {
            "ApiUrl": self.stepwell.ingest.url,
            "BusName": self.stepwell.bus.bus.event_bus_name,
            "TableName": self.stepwell.state.table.table_name,
            "BucketName": self.stepwell.state.bucket.bucket_name,
        }
        domain = self.stepwell.ingest.domain
        if domain is not None:  # the value of the domain's CNAME record
            outputs["DomainTarget"] = domain.regional_domain_name
        for name, value in outputs.items():
            CfnOutput(self, name, value=value)
