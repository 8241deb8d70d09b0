"""The CDK app: `npx cdk deploy -c env=dev`. infra/README.md lists the settings."""

from __future__ import annotations

import os
import sys

try:
    import cdk_nag
    from aws_cdk import App, Environment, Tags, Validations
except ImportError as missing:
    sys.exit(f"{missing}: run `pip install -e '.[aws,cdk]'` in a virtual environment and activate it")

from infra.setting_fields import BadSetting
from infra.settings import Settings
from infra.stack import StepwellStack


def main() -> None:
    app = App()
    try:
        settings = Settings.from_context(app.node.try_get_context, app.node.get_all_context())
        where = Environment(account=os.environ.get("CDK_DEFAULT_ACCOUNT"), region=os.environ.get("CDK_DEFAULT_REGION"))
        stack = StepwellStack(app, settings, env=where)
    except BadSetting as problem:
        sys.exit(str(problem))
    Tags.of(stack).add("stepwell:env", settings.env)
    Validations.of(app).add_plugins(cdk_nag.AwsSolutionsChecks(app))
    app.synth()


main()
