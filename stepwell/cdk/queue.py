"""A durable SQS queue: encrypted, TLS only, with a dead-letter queue.

A message that cannot be handled stays in the dead-letter queue for 14 days, the longest retention of SQS.
"""

from __future__ import annotations

from aws_cdk import Duration
from aws_cdk import aws_kms as kms
from aws_cdk import aws_sqs as sqs
from constructs import Construct

from stepwell.aws.queues.redelivery import MAX_RECEIVES

KEPT = Duration.days(14)


class DurableQueue(Construct):
    """A queue and a dead-letter queue: `queue` and `dead_letters`.

    `handler_timeout`: the timeout of the Lambda that reads the queue. The visibility timeout is six times as long, as
    AWS recommends, so that a batch that waits for a free instance is not delivered twice; plus `batching_window`, in
    which Lambda collects messages. `key`: a KMS key; the default is encryption managed by SQS.

    https://docs.aws.amazon.com/lambda/latest/dg/services-sqs-configure.html
    """

    def __init__(
        self,
        scope: Construct,
        id: str,
        *,
        handler_timeout: Duration,
        batching_window: Duration | None = None,
        key: kms.IKey | None = None,
    ) -> None:
        super().__init__(scope, id)
        collected_s = 0 if batching_window is None else int(batching_window.to_seconds())
        self.dead_letters = _queue(self, "DeadLetters", key)
        self.queue = _queue(
            self,
            "Queue",
            key,
            visibility=Duration.seconds(6 * int(handler_timeout.to_seconds()) + collected_s),
            dead_letters=sqs.DeadLetterQueue(queue=self.dead_letters, max_receive_count=MAX_RECEIVES),
        )


def _queue(
    scope: Construct,
    id: str,
    key: kms.IKey | None,
    visibility: Duration | None = None,
    dead_letters: sqs.DeadLetterQueue | None = None,
) -> sqs.Queue:
    return sqs.Queue(
        scope,
        id,
        encryption=sqs.QueueEncryption.SQS_MANAGED if key is None else sqs.QueueEncryption.KMS,
        encryption_master_key=key,
        enforce_ssl=True,
        retention_period=KEPT,
        visibility_timeout=visibility,
        dead_letter_queue=dead_letters,
    )
