"""Step `webhook`: tells another program that a recording is complete, signed, at least once.

The form is that of Standard Webhooks 1.0 ("Webhook headers", "Signature scheme", symmetric): the
receiver checks it with any of that specification's libraries. `webhook-id` stays the same whenever
the same recording is told again, and so does `Idempotency-Key`, which says the same to receivers
that know draft-ietf-httpapi-idempotency-key-header: who remembers it takes each recording once.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import urlsplit

import aiohttp
from pydantic import SecretStr

from recorder.catalog import Document
from recorder.postprocess.steps.base import Job, Step, StepFailed
from recorder.settings import Settings
from recorder.settings_values import StepName, webhook_key
from uploader.errors import StoreError, TransientError
from uploader.retry import Retrier, RetryPolicy
from uploader.s3_errors import retry_after

EVENT = "recording.completed"
MAX_GAPS = 100
"""Gaps that are told one by one; `gaps_total` says how many there are."""

_TRANSIENT = frozenset({408, 425, 429})
"""Refusals for now (RFC 9110, RFC 8470, RFC 6585); so are all 5xx."""


class WebhookRefused(StoreError):
    """The receiver says no, and would again."""


class WebhookStep(Step):
    """Posts what the recording is, and what the steps before have made of it."""

    name: ClassVar[StepName] = "webhook"
    last: ClassVar[bool] = True

    def parameters(self, settings: Settings) -> str:
        """See `Step.parameters`: a digest of the address, which may hold a secret."""
        return hashlib.sha256(_secret(settings.webhook_url).encode()).hexdigest()[:16]

    async def run(self, job: Job) -> dict[str, Any]:
        """See `Step.run`."""
        settings = job.settings
        url, secret = _secret(settings.webhook_url), _secret(settings.webhook_secret)
        if not url or not secret:
            hint = "set RECORDER_WEBHOOK_URL and RECORDER_WEBHOOK_SECRET"
            raise StepFailed("there is nowhere to post to, or nothing to sign with", hint=hint)
        name = f"{job.subject.place.recording_id}.{job.subject.content}"
        body = json.dumps(payload(job), ensure_ascii=False).encode()
        retrier = Retrier(
            RetryPolicy(
                base_seconds=settings.retry_base_seconds,
                max_wait_seconds=settings.retry_max_wait_seconds,
                attempts=None if settings.webhook_retry_seconds else 1,
                deadline_seconds=settings.webhook_retry_seconds + settings.webhook_timeout_seconds,
                attempt_timeout_seconds=settings.webhook_timeout_seconds,
            )
        )

        async def post() -> int:
            return await _post(job.http, url, body, headers(name, body, webhook_key(secret)))

        try:
            status = await retrier.call("webhook", post, log=job.log)
        except WebhookRefused as error:
            hint = "see that RECORDER_WEBHOOK_URL is right, and what the receiver says of it"
            raise StepFailed(str(error), hint=hint) from error
        return {"id": name, "status": status, "attempts": retrier.counts["webhook"].attempts}


def headers(name: str, body: bytes, key: bytes) -> dict[str, str]:
    """Return the headers of a post, signed for now.

    Args:
        name: The message's id.
        body: What is posted.
        key: The secret's bytes.
    """
    at = str(int(datetime.now(UTC).timestamp()))
    signed = b".".join((name.encode(), at.encode(), body))
    signature = base64.b64encode(hmac.digest(key, signed, "sha256")).decode()
    return {
        "content-type": "application/json",
        "user-agent": "bot-recorder",
        "idempotency-key": f'"{name}"',  # a string of RFC 8941
        "webhook-id": name,
        "webhook-timestamp": at,
        "webhook-signature": f"v1,{signature}",
    }


def payload(job: Job) -> dict[str, Any]:
    """Return what is told of a recording; nobody's `user_id`, which can be personal."""
    manifest, place = job.manifest, job.subject.place
    gaps = manifest.items("gaps")
    return {
        "type": EVENT,
        "timestamp": datetime.now(UTC).isoformat(timespec="seconds"),
        "data": {
            "recording_id": place.recording_id,
            "day": place.day,
            "content": job.subject.content,
            "url": job.store.url(place.folder),
            "state": manifest.text("state"),
            "started_at": manifest.text("started_at"),
            "duration_seconds": manifest.number("duration_seconds"),
            "samples": manifest.count("samples"),
            "sample_rate": manifest.count("sample_rate"),
            "tracks": [one.text("name") for one in manifest.items("tracks")],
            "outputs": [_output(job, one) for one in manifest.items("outputs")],
            "turns": len(manifest.items("turns")),
            "gaps": [dict(one.values) for one in gaps[:MAX_GAPS]],
            "gaps_total": len(gaps),
            "continuations": [one.text("folder") for one in manifest.items("continuations")],
            "metadata": manifest.pairs("metadata"),
            "steps": {
                name: _step(entry) for name, entry in job.steps.items() if name != WebhookStep.name
            },
        },
    }


def _output(job: Job, output: Document) -> dict[str, Any]:
    return {
        "name": output.text("name"),
        "key": output.text("key"),
        "url": job.store.url(output.text("key")),
        "bytes": output.count("bytes"),
        "channels": output.count("channels"),
        "duration_seconds": output.number("duration_seconds"),
        "checksum_crc64nvme": output.text("checksum"),
    }


def _step(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry[name] for name in ("state", "result", "reason") if name in entry}


async def _post(
    http: aiohttp.ClientSession, url: str, body: bytes, signed: Mapping[str, str]
) -> int:
    """Post once; return the status of an answer that says it is taken.

    A redirect is not followed: what is told goes to the address that was set, and nowhere else.
    """
    parts = urlsplit(url)
    where = f"{parts.scheme}://{parts.hostname}"  # the rest may hold a secret
    try:
        async with http.post(url, data=body, headers=signed, allow_redirects=False) as answer:
            status, after = answer.status, retry_after(answer.headers)
    except (aiohttp.InvalidURL, UnicodeError) as error:
        raise WebhookRefused(f"{where} is no URL that can be posted to", op="webhook") from error
    except (aiohttp.ClientError, OSError) as error:
        said = f"{where} does not answer: {type(error).__name__}"
        raise TransientError(said, op="webhook", code=type(error).__name__) from error
    if 200 <= status < 300:
        return status
    said = f"{where} answers {status}"
    if status >= 500 or status in _TRANSIENT:
        raise TransientError(said, op="webhook", code=str(status), retry_after=after)
    raise WebhookRefused(said, op="webhook", code=str(status))


def _secret(value: SecretStr | None) -> str:
    return "" if value is None else value.get_secret_value()
