"""The CDK app of a team with a queue and a stream, whose records become events: two uses of `stepwell.cdk.Source`."""

from __future__ import annotations

from pathlib import Path

from aws_cdk import App, CfnOutput, Duration, RemovalPolicy, Stack
from aws_cdk import aws_kinesis as kinesis
from aws_cdk import aws_kms as kms
from aws_cdk import aws_lambda as lambda_
from aws_cdk import aws_sqs as sqs
from aws_cdk.aws_lambda_event_sources import KinesisEventSource, SqsEventSource

from stepwell.cdk import Source

FILE = Path(__file__).parent / "sources" / "notes.yaml"


class Sources(Stack):
    def __init__(self, app: App, id: str) -> None:
        super().__init__(app, id)
        env: str = app.node.get_context("env")
        queue = sqs.Queue(self, "Notes", visibility_timeout=Duration.minutes(6))
        stream = kinesis.Stream(self, "Stream", shard_count=1, removal_policy=RemovalPolicy.DESTROY)
        of_queue = SqsEventSource(queue, batch_size=10, report_batch_item_failures=True)
        of_stream = KinesisEventSource(stream, starting_position=lambda_.StartingPosition.TRIM_HORIZON)
        notes = Source(self, "NotesSource", env=env, file=FILE, reads=of_queue)
        rule = {"name": "stream", "event": "note/{{ body.does }}"}
        streamed = Source(self, "StreamSource", env=env, rule=rule, reads=of_stream)
        if key := app.node.try_get_context("kms_key"):
            for source in (notes, streamed):
                kms.Key.from_key_arn(source, "Key", key).grant_encrypt_decrypt(source.function)
        CfnOutput(self, "Queue", value=queue.queue_url)
        CfnOutput(self, "StreamName", value=stream.stream_name)
        CfnOutput(self, "Quarantine", value=notes.quarantine.queue_url)


app = App()
Sources(app, "StepwellRehearsalSources")
app.synth()
