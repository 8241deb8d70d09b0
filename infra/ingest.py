"""The HTTP API: `/e` and `/webhooks` go to the Lambda `ingest`, everything else to the Lambda `api`.

API keys must not be logged. A path may contain a key (`/e/{key}`), so the access log has routes instead of paths.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import cast

from aws_cdk import aws_apigatewayv2 as apigateway
from aws_cdk import aws_certificatemanager as acm
from aws_cdk import aws_lambda
from aws_cdk.aws_apigatewayv2_integrations import HttpLambdaIntegration
from constructs import Construct

from infra.logs import log_group
from infra.settings import Settings
from stepwell.aws.topology import DEFAULT, FUNCTIONS, Http

LOGGED = {
    "request_id": "$context.requestId",
    "at": "$context.requestTimeEpoch",
    "route": "$context.routeKey",
    "status": "$context.status",
    "bytes": "$context.responseLength",
    "ms": "$context.responseLatency",
    "error": "$context.integrationErrorMessage",
}


class Ingest(Construct):
    """The HTTP API. `functions`: the engine's Lambdas by name."""

    def __init__(self, scope: Construct, settings: Settings, functions: Mapping[str, aws_lambda.IFunction]) -> None:
        super().__init__(scope, "Ingest")
        self.domain = self._domain(settings) if settings.domain else None
        self.api = apigateway.HttpApi(
            self,
            "Api",
            description=f"Stepwell {settings.env}",
            create_default_stage=False,
            default_integration=HttpLambdaIntegration("Everything", functions[DEFAULT.name]),
        )
        for function in FUNCTIONS:
            if isinstance(function.trigger, Http) and function is not DEFAULT:
                self._add(function.trigger, HttpLambdaIntegration("Events", functions[function.name]))
        self.stage = self._stage(settings)
        self.url = f"https://{settings.domain}" if settings.domain else self.api.api_endpoint

    def _add(self, trigger: Http, integration: HttpLambdaIntegration) -> None:
        methods = [apigateway.HttpMethod[method] for method in trigger.methods]
        for path in trigger.paths:
            self.api.add_routes(path=path, methods=methods, integration=integration)

    def _stage(self, settings: Settings) -> apigateway.HttpStage:
        stage = apigateway.HttpStage(
            self,
            "Stage",
            http_api=self.api,
            stage_name="$default",
            auto_deploy=True,
            throttle=apigateway.ThrottleSettings(
                rate_limit=settings.throttle_rate, burst_limit=settings.throttle_burst
            ),
            domain_mapping=apigateway.DomainMappingOptions(domain_name=self.domain) if self.domain else None,
        )
        cast(
            apigateway.CfnStage, stage.node.default_child
        ).access_log_settings = apigateway.CfnStage.AccessLogSettingsProperty(
            destination_arn=log_group(self, "AccessLog", settings).log_group_arn,
            format=json.dumps(LOGGED),
        )
        return stage

    def _domain(self, settings: Settings) -> apigateway.DomainName:
        certificate = acm.Certificate.from_certificate_arn(self, "Certificate", settings.certificate)
        return apigateway.DomainName(
            self,
            "Domain",
            domain_name=settings.domain,
            certificate=certificate,
            security_policy=apigateway.SecurityPolicy.TLS_1_2,
        )
