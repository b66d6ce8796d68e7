"""What a webhook says, how it is signed, and how it is repeated: by the form's own library."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from complete import SECRET, noted, place, recorded, settings_for
from receiver import Receiver, receiving
from standardwebhooks import Webhook, WebhookVerificationError

from recorder.postprocess import Processor, Verdict
from recorder.postprocess.steps.webhook import headers
from recorder.settings_values import webhook_key


@pytest_asyncio.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as one:
        yield one


@pytest_asyncio.fixture
async def processor(tmp_path: Path, receiver: Receiver) -> AsyncIterator[Processor]:
    settings = settings_for(
        tmp_path,
        postprocess_steps="verify,webhook",
        webhook_url=receiver.url,
        webhook_secret=SECRET,
        webhook_timeout_seconds=30,
        webhook_retry_seconds=30,
    )
    await recorded(tmp_path)
    async with Processor(settings) as opened:
        yield opened


def test_the_signature_is_that_of_standard_webhooks() -> None:
    body = '{"a": "\u00e9"}'.encode()
    signed = headers("call.0123", body, webhook_key(SECRET))
    assert Webhook(SECRET).verify(body, signed) == {"a": "\u00e9"}
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body + b" ", signed)
    with pytest.raises(WebhookVerificationError):
        Webhook(SECRET).verify(body, {**signed, "webhook-id": "other"})
    assert signed["idempotency-key"] == '"call.0123"'


async def test_a_complete_recording_is_told(processor: Processor, receiver: Receiver) -> None:
    done = await processor.process(place("call"))
    assert (done.verdict, done.steps) == (Verdict.DONE, {"verify": "done", "webhook": "done"})
    [told] = receiver.told
    assert told["type"] == "recording.completed"
    data = told["data"]
    assert data["recording_id"] == "call"
    assert data["state"] == "completed"
    assert data["metadata"] == {"call": "call"}
    assert data["duration_seconds"] == 1.2
    [output] = data["outputs"]
    assert output["key"] == "dt=2026-11-23/call/audio.wav"
    assert output["url"] == processor.store.url(output["key"])
    assert output["bytes"] == (await processor.store.head(output["key"])).size
    assert data["steps"]["verify"]["state"] == "done"
    assert "webhook" not in data["steps"]
    entry = (await noted(processor.store, "call"))["steps"]["webhook"]
    assert entry["result"]["id"] == receiver.headers["webhook-id"]
    assert "s3cret" not in str(await noted(processor.store, "call"))


async def test_what_is_wrong_for_a_while_is_posted_again_as_the_same(
    processor: Processor, receiver: Receiver
) -> None:
    receiver.answers = [(503, {}), (429, {"Retry-After": "0"}), (408, {})]
    done = await processor.process(place("call"))
    assert done.verdict is Verdict.DONE
    assert list(receiver.ids.values()) == [4]
    entry = (await noted(processor.store, "call"))["steps"]["webhook"]
    assert entry["result"]["attempts"] == 4


@pytest.mark.parametrize("status", [302, 400, 401, 404, 410])
async def test_a_refusal_is_final(processor: Processor, receiver: Receiver, status: int) -> None:
    receiver.answers = [(status, {"Location": receiver.url})]
    done = await processor.process(place("call"))
    assert done.verdict is Verdict.FAILED
    assert f"http://127.0.0.1 answers {status}" in done.reason
    assert "s3cret" not in done.reason
    assert receiver.told == []
    again = await processor.process(place("call"))
    assert again.steps == {"webhook": "done"}


async def test_a_receiver_that_is_not_there_is_tried_later(
    tmp_path: Path, receiver: Receiver
) -> None:
    options: dict[str, Any] = {
        "postprocess_steps": "webhook",
        "webhook_secret": SECRET,
        "webhook_timeout_seconds": 60,
        "webhook_retry_seconds": 0,
    }
    settings = settings_for(tmp_path, webhook_url="http://127.0.0.1:9/s3cret", **options)
    await recorded(tmp_path)
    async with Processor(settings) as processor:
        done = await processor.process(place("call"))
        assert done.verdict is Verdict.PUT_OFF
        assert "http://127.0.0.1" in done.reason
        assert "s3cret" not in done.reason
        receiver.hold.clear()
    slow = settings.replace(webhook_url=receiver.url, webhook_timeout_seconds=0.1)
    async with Processor(slow) as processor:
        done = await processor.process(place("call"))
        assert done.verdict is Verdict.PUT_OFF
    receiver.hold.set()
    async with Processor(slow.replace(webhook_timeout_seconds=60)) as processor:
        done = await processor.process(place("call"))
        assert done.verdict is Verdict.DONE, done.reason


async def test_another_address_is_told_anew(processor: Processor, receiver: Receiver) -> None:
    await processor.process(place("call"))
    elsewhere = processor.settings.replace(webhook_url=receiver.url + "&other=1")
    async with Processor(elsewhere) as other:
        done = await other.process(place("call"))
    assert done.steps == {"webhook": "done"}
    assert list(receiver.ids.values()) == [2]


def test_signatures_are_of_now() -> None:
    signed = headers("a", b"{}", webhook_key(SECRET))
    at = datetime.fromtimestamp(int(signed["webhook-timestamp"]), UTC)
    assert abs(at - datetime.now(UTC)) < timedelta(minutes=1)
