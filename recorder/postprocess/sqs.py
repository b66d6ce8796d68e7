"""A queue of Amazon SQS, or of a server like it. The only file that knows its client.

The client does not retry: `uploader.retry` does. A message that is received twice is handled twice,
which does no harm: so every request here may be repeated.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import aioboto3
import aiohttp
from aiobotocore.config import AioConfig
from botocore import exceptions as boto

from recorder.settings import Settings
from uploader.errors import AccessDenied, StoreError, TransientError

if TYPE_CHECKING:
    from types_aiobotocore_sqs import SQSClient

MAX_BATCH = 10
"""Messages of one receive (Amazon SQS API Reference, "ReceiveMessage")."""
MAX_WAIT_SECONDS = 20
"""Of one long poll (likewise)."""
MAX_HIDDEN_SECONDS = 12 * 3600
"""Longest that a message is hidden (Amazon SQS Developer Guide, "Visibility timeout")."""

_AWS_HOST = re.compile(r"(?:sqs\.([a-z0-9-]+)|([a-z0-9-]+)\.queue)\.amazonaws\.com(?:\.cn)?")
_DENIED = re.compile(
    r"AccessDenied|InvalidClientTokenId|InvalidAccessKeyId|SignatureDoesNotMatch|ExpiredToken|"
    r"UnrecognizedClient|InvalidSecurity|OptInRequired|MissingAuthenticationToken|NotAuthorized"
)
_TRANSIENT = re.compile(r"Throttl|RequestLimit|TooManyRequests|Unavailable|InternalError|OverLimit")
_NO_QUEUE = re.compile(r"NonExistentQueue|QueueDoesNotExist|InvalidAddress")


class NoSuchQueue(StoreError):
    """There is no such queue."""


class QueueRefused(StoreError):
    """The queue's server refuses a request."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message that was received, hidden from others for a while.

    Attributes:
        name: The server's id for it, the same at each receive.
        receipt: What this receive of it is known by.
        body: Its text.
        receives: How often it was received, this time included.
    """

    name: str
    receipt: str
    body: str
    receives: int


class SqsQueue:
    """One queue.

    Args:
        client: Of SQS, open.
        url: The queue's.
    """

    def __init__(self, client: SQSClient, url: str) -> None:
        self.url = url
        self._client = client

    async def receive(self, count: int, *, wait: float, hide: float) -> list[Message]:
        """Return up to `count` messages, at most ten; none, if none comes within the wait.

        Args:
            count: Most messages.
            wait: How long to wait for the first, seconds, at most 20.
            hide: How long they are hidden from others, seconds.
        """
        with _translated("receive", self.url):
            answer = await self._client.receive_message(
                QueueUrl=self.url,
                MaxNumberOfMessages=max(1, min(count, MAX_BATCH)),
                WaitTimeSeconds=int(min(wait, MAX_WAIT_SECONDS)),
                VisibilityTimeout=int(hide),
                MessageSystemAttributeNames=["ApproximateReceiveCount"],
            )
        return [
            Message(
                one["MessageId"],
                one["ReceiptHandle"],
                one.get("Body", ""),
                int(one.get("Attributes", {}).get("ApproximateReceiveCount", "1")),
            )
            for one in answer.get("Messages", ())
        ]

    async def delete(self, message: Message) -> None:
        """Have a message never come again. One that is gone is no error."""
        with _translated("delete_message", self.url):
            await self._client.delete_message(QueueUrl=self.url, ReceiptHandle=message.receipt)

    async def hide(self, message: Message, seconds: float) -> None:
        """Hide a message for so long from now; 0 has it come again at once."""
        hidden = int(max(0, min(seconds, MAX_HIDDEN_SECONDS)))
        with _translated("hide_message", self.url):
            await self._client.change_message_visibility(
                QueueUrl=self.url, ReceiptHandle=message.receipt, VisibilityTimeout=hidden
            )

    async def most_receives(self) -> int | None:
        """Return after how many receives a message goes to the dead-letter queue; None for never.

        Raises:
            NoSuchQueue: There is none.
            StoreError: The server refuses, or cannot be reached.
        """
        with _translated("queue_attributes", self.url):
            answer = await self._client.get_queue_attributes(
                QueueUrl=self.url, AttributeNames=["RedrivePolicy"]
            )
        try:
            policy = json.loads(answer.get("Attributes", {}).get("RedrivePolicy", "null"))
            return int(policy["maxReceiveCount"])
        except (ValueError, KeyError, TypeError):
            return None


@contextlib.asynccontextmanager
async def open_queue(settings: Settings, url: str) -> AsyncIterator[SqsQueue]:
    """Make a client for a queue, and close it at the end.

    Raises:
        StoreError: The client's configuration is not valid.
    """
    key, secret = settings.aws_access_key_id, settings.aws_secret_access_key
    token = settings.aws_session_token
    match = _AWS_HOST.fullmatch(urlsplit(url).hostname or "")
    endpoint = settings.aws_endpoint_url_sqs
    region = (match and (match[1] or match[2])) or settings.aws_region
    options: dict[str, Any] = {
        "aws_access_key_id": key.get_secret_value() if key else None,
        "aws_secret_access_key": secret.get_secret_value() if secret else None,
        "aws_session_token": token.get_secret_value() if token else None,
        "region_name": region or ("us-east-1" if endpoint else None),
        "profile_name": None if key else settings.aws_profile,
    }
    config = AioConfig(
        retries={"total_max_attempts": 1},
        connect_timeout=10,
        read_timeout=3 * MAX_WAIT_SECONDS,
        tcp_keepalive=True,
    )
    async with contextlib.AsyncExitStack() as stack:
        with _translated("open", url):
            session = aioboto3.Session(**options)
            opening = session.client("sqs", endpoint_url=endpoint, config=config)
            client = await stack.enter_async_context(opening)
        yield SqsQueue(client, url)


@contextlib.contextmanager
def _translated(op: str, url: str) -> Iterator[None]:
    """Turn the client's errors into those that the retry layer knows."""
    try:
        yield
    except boto.ClientError as error:
        raise _refusal(op, url, error) from error
    except (boto.NoCredentialsError, boto.PartialCredentialsError) as error:
        hint = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or run with a role"
        raise AccessDenied(f"{op} at {url}: {error}", op=op, key=url, hint=hint) from error
    except (aiohttp.ClientError, OSError, boto.HTTPClientError, boto.ConnectionError) as error:
        code = type(error).__name__
        raise TransientError(f"{op} at {url}: {error}", op=op, key=url, code=code) from error
    except (boto.BotoCoreError, ValueError) as error:
        code = type(error).__name__
        raise QueueRefused(f"{op} at {url}: {error}", op=op, key=url, code=code) from error


def _refusal(op: str, url: str, error: boto.ClientError) -> StoreError:
    details, about = error.response.get("Error", {}), error.response.get("ResponseMetadata", {})
    code, status = str(details.get("Code", "")), int(about.get("HTTPStatusCode", 0))
    said = f"{op} at {url}: {code}: {details.get('Message', '')}"
    if _NO_QUEUE.search(code):
        hint = "correct RECORDER_POSTPROCESS_QUEUE_URL, or the region"
        return NoSuchQueue(said, op=op, key=url, code=code, hint=hint)
    if _DENIED.search(code) or status in (401, 403):
        hint = (
            "allow sqs:ReceiveMessage, sqs:DeleteMessage, sqs:ChangeMessageVisibility and "
            "sqs:GetQueueAttributes"
        )
        return AccessDenied(said, op=op, key=url, code=code, hint=hint)
    if _TRANSIENT.search(code) or status >= 500 or status == 429:
        return TransientError(said, op=op, key=url, code=code)
    return QueueRefused(said, op=op, key=url, code=code)
