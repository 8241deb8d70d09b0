"""The environment's data: the table (`stepwell/aws/table/keys.py` has the keys) and the bucket.

`keep_data` decides whether they stay in the account when the stack is deleted.
"""

from __future__ import annotations

from aws_cdk import Duration, RemovalPolicy
from aws_cdk import aws_dynamodb as dynamodb
from aws_cdk import aws_kms as kms
from aws_cdk import aws_s3 as s3
from constructs import Construct

from infra.key import key_of
from infra.settings import Settings
from stepwell.aws.table.keys import STATUS_INDEX

INPUTS = "inputs/"  # prefix in the bucket: inputs and reports of container steps
INPUT_DAYS = 14


class State(Construct):
    def __init__(self, scope: Construct, settings: Settings) -> None:
        super().__init__(scope, "State")
        removal = RemovalPolicy.RETAIN if settings.keep_data else RemovalPolicy.DESTROY
        key = key_of(self, settings)
        self.table: dynamodb.ITable
        if settings.table:
            self.table = self._adopted(settings.table, key)
        else:
            self.table = self._table(settings, removal, key)
        self.bucket = s3.Bucket(
            self,
            "Bucket",
            block_public_access=s3.BlockPublicAccess.BLOCK_ALL,
            encryption=s3.BucketEncryption.S3_MANAGED if key is None else s3.BucketEncryption.KMS,
            encryption_key=key,
            bucket_key_enabled=None if key is None else True,
            enforce_ssl=True,
            minimum_tls_version=1.2,
            object_ownership=s3.ObjectOwnership.BUCKET_OWNER_ENFORCED,
            removal_policy=removal,
            auto_delete_objects=not settings.keep_data,
            lifecycle_rules=[
                s3.LifecycleRule(prefix=INPUTS, expiration=Duration.days(INPUT_DAYS)),
                s3.LifecycleRule(abort_incomplete_multipart_upload_after=Duration.days(1)),
            ],
        )

    def _adopted(self, name: str, key: kms.IKey | None) -> dynamodb.ITable:
        """An existing table, which the stack does not create, change or delete: see docs/operate/restore-aws.md."""
        return dynamodb.Table.from_table_attributes(
            self, "Adopted", table_name=name, global_indexes=[STATUS_INDEX], encryption_key=key
        )

    def _table(self, settings: Settings, removal: RemovalPolicy, key: kms.IKey | None) -> dynamodb.Table:
        text, number = dynamodb.AttributeType.STRING, dynamodb.AttributeType.NUMBER
        warm = _warm(settings)
        table = dynamodb.Table(
            self,
            "Table",
            partition_key=dynamodb.Attribute(name="pk", type=text),
            sort_key=dynamodb.Attribute(name="sk", type=text),
            billing_mode=dynamodb.BillingMode.PAY_PER_REQUEST,
            time_to_live_attribute="ttl",
            warm_throughput=warm,
            encryption=None if key is None else dynamodb.TableEncryption.CUSTOMER_MANAGED,
            encryption_key=key,
            point_in_time_recovery_specification=dynamodb.PointInTimeRecoverySpecification(
                point_in_time_recovery_enabled=settings.point_in_time_recovery
            ),
            deletion_protection=settings.keep_data,
            removal_policy=removal,
        )
        table.add_global_secondary_index(
            index_name=STATUS_INDEX,
            partition_key=dynamodb.Attribute(name="gk", type=text),
            sort_key=dynamodb.Attribute(name="gs", type=number),
            projection_type=dynamodb.ProjectionType.KEYS_ONLY,
            warm_throughput=warm,
        )
        return table


def _warm(settings: Settings) -> dynamodb.WarmThroughput | None:
    """The warm throughput of the table, and of the index: each run is written to both."""
    if settings.warm_units is None:
        return None
    reads, writes = settings.warm_units
    return dynamodb.WarmThroughput(read_units_per_second=reads, write_units_per_second=writes)
