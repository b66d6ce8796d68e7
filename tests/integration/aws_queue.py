"""A bucket whose events go to a queue, with a dead-letter queue behind it: on moto's server."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aioboto3
from complete import settings_for

from recorder.settings import Settings

PREFIX = "a+b/c=d"
"""What S3's events encode."""
MOST_RECEIVES = 3


@dataclass
class Aws:
    """What is there.

    Attributes:
        url: The server's.
        bucket: With events of new manifests and outputs.
        queue: URL of the queue that they go to.
        dead: URL of the dead-letter queue.
        sqs: A client.
    """

    url: str
    bucket: str
    queue: str
    dead: str
    sqs: Any

    def settings(self, folder: Path, **changes: Any) -> Settings:
        """Settings for this bucket and queue."""
        values: dict[str, Any] = {
            "bucket": f"s3://{self.bucket}/{PREFIX}",
            "aws_endpoint_url_s3": self.url,
            "aws_endpoint_url_sqs": self.url,
            "postprocess_queue_url": self.queue,
        }
        return settings_for(folder, **{**values, **changes})

    async def send(self, *bodies: str) -> None:
        """Send messages to the queue."""
        for body in bodies:
            await self.sqs.send_message(QueueUrl=self.queue, MessageBody=body)

    async def take(self, url: str | None = None, *, keep: bool = False) -> list[dict[str, Any]]:
        """Return all messages that are visible in a queue, and delete them unless they are kept."""
        found: list[dict[str, Any]] = []
        while True:
            answer = await self.sqs.receive_message(
                QueueUrl=url or self.queue, MaxNumberOfMessages=10, VisibilityTimeout=3600
            )
            if not (messages := answer.get("Messages", [])):
                break
            found += messages
        for one in found:
            receipt = one["ReceiptHandle"]
            if keep:
                await self.sqs.change_message_visibility(
                    QueueUrl=url or self.queue, ReceiptHandle=receipt, VisibilityTimeout=0
                )
            else:
                await self.sqs.delete_message(QueueUrl=url or self.queue, ReceiptHandle=receipt)
        return found

    async def left(self, url: str | None = None) -> int:
        """Return how many messages a queue has, visible or not."""
        names = ["ApproximateNumberOfMessages", "ApproximateNumberOfMessagesNotVisible"]
        answer = await self.sqs.get_queue_attributes(
            QueueUrl=url or self.queue, AttributeNames=names
        )
        return sum(int(answer["Attributes"][name]) for name in names)


@contextlib.asynccontextmanager
async def aws(url: str) -> AsyncIterator[Aws]:
    """Make a bucket and queues of one's own."""
    name = f"calls-{uuid.uuid4().hex[:12]}"
    session = aioboto3.Session()
    async with (
        session.client("s3", endpoint_url=url) as s3,
        session.client("sqs", endpoint_url=url) as sqs,
    ):
        dead = (await sqs.create_queue(QueueName=f"{name}-dead"))["QueueUrl"]
        queue = (await sqs.create_queue(QueueName=name))["QueueUrl"]

        async def arn(of: str) -> str:
            answer = await sqs.get_queue_attributes(QueueUrl=of, AttributeNames=["QueueArn"])
            return answer["Attributes"]["QueueArn"]

        policy = {"deadLetterTargetArn": await arn(dead), "maxReceiveCount": MOST_RECEIVES}
        await sqs.set_queue_attributes(
            QueueUrl=queue, Attributes={"RedrivePolicy": json.dumps(policy)}
        )
        await s3.create_bucket(Bucket=name)

        def told(suffix: str, target: str) -> dict[str, Any]:
            rule = {"Name": "suffix", "Value": suffix}
            return {
                "QueueArn": target,
                "Events": ["s3:ObjectCreated:*"],
                "Filter": {"Key": {"FilterRules": [rule]}},
            }

        target = await arn(queue)
        await s3.put_bucket_notification_configuration(
            Bucket=name,
            NotificationConfiguration={
                "QueueConfigurations": [
                    told("manifest.json", target),
                    told(".wav", target),
                    told("postprocess.json", target),
                ]
            },
        )
        yield Aws(url, name, queue, dead, sqs)
