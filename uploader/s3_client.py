"""The S3 client: how it is made, and what its errors mean. The only file that imports it.

The client does not retry, does not follow a bucket to another region, and computes no checksums
of its own: that is the work of `uploader.retry`, of who set the region, and of the store. What
remains is one repetition inside aiohttp, of a request other than POST whose connection broke.

It signs with `uploader.s3_credentials` and by `uploader.s3_clock`, so that credentials and time can
be corrected while its connections stay.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import aioboto3
import aiobotocore
import aiobotocore.session
import aiohttp
import botocore.loaders
from aiobotocore.config import AioConfig
from aiobotocore.credentials import AioCredentials
from botocore import exceptions as boto
from botocore.auth import AUTH_TYPE_MAPS, S3SigV4Auth, S3SigV4QueryAuth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.parsers import ResponseParserError
from botocore.utils import determine_content_length

from uploader.errors import (
    AccessDenied,
    ChecksumError,
    InvalidRequest,
    StoreError,
    TransientError,
)
from uploader.s3_clock import SKEW_CODES, SigningClock
from uploader.s3_credentials import (
    EXPIRED_CODES,
    REPLACED_CODES,
    CredentialsUnavailable,
    RenewableCredentials,
    Source,
)
from uploader.s3_errors import Answer, to_error

if TYPE_CHECKING:
    from types_aiobotocore_s3 import S3Client

DEFAULT_REGION = "us-east-1"
"""What requests to an endpoint of one's own are signed for, if no region is set."""

_NO_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile, or run with a role"
)


SMALL_BYTES = 64 * 1024
"""A body up to so long is sent with its request's head, before the server has said a word."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A client, and what its requests are signed with.

    Attributes:
        client: The client.
        clock: When requests are signed.
        credentials: None where they were given as arguments, and so cannot change.
        given: Those, then.
    """

    client: S3Client
    clock: SigningClock
    credentials: RenewableCredentials | None
    given: ReadOnlyCredentials | None = None


@contextlib.asynccontextmanager
async def connect(
    *,
    profile: str | None,
    access_key: str | None,
    secret_key: str | None,
    session_token: str | None,
    region: str | None,
    endpoint_url: str | None,
    max_connections: int,
    connect_timeout: float,
    read_timeout: float,
) -> AsyncIterator[Connection]:
    """Make a client, and close it and its connections at the end; see `S3Store` for arguments."""
    config = AioConfig(
        signature_version="s3v4",
        connect_timeout=connect_timeout,
        read_timeout=read_timeout,
        max_pool_connections=max_connections,
        retries={"total_max_attempts": 1},
        parameter_validation=False,  # what may be sent is checked by `uploader.limits`
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        tcp_keepalive=True,
        # Given as a whole: what the client says of its host is put together for each request.
        user_agent=f"bot-recorder aiobotocore/{aiobotocore.__version__}",
        # The bucket is put in the path for an endpoint of one's own, in the host name for AWS:
        # that is the default, and `addressing_style` in the AWS configuration can change it.
        s3={"payload_signing_enabled": False},
    )
    region = region or (DEFAULT_REGION if endpoint_url else None)
    core = _core()
    credentials: RenewableCredentials | None = None
    if access_key is None and secret_key is None:
        credentials = RenewableCredentials(functools.partial(_look, profile, region))
        core.register_component("credential_provider", _Provider(credentials))
    session = aioboto3.Session(
        botocore_session=core,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret_key,
        aws_session_token=session_token,
        region_name=region,
        profile_name=profile,
    )
    clock = SigningClock()
    async with session.client("s3", endpoint_url=endpoint_url, config=config) as client:
        client.meta.events.register("before-call.s3", _stay_in_region)
        client.meta.events.register_last("before-call.s3", _send_small_unasked)
        choose: Any = functools.partial(_choose, clock)  # the stubs know of no answers to events
        client.meta.events.register_first("choose-signer.s3", choose)
        _resolve_for_all_keys(client)
        given = None
        if credentials is None:
            given = ReadOnlyCredentials(access_key or "", secret_key or "", session_token)
        yield Connection(client, clock, credentials, given)


def _core() -> aiobotocore.session.AioSession:
    core = aiobotocore.session.get_session()
    core.register_component("data_loader", _loader())
    return core


@functools.cache
def _loader() -> botocore.loaders.Loader:
    """Return the reader of the API's description: reading it anew costs 150 ms for each client."""
    return botocore.loaders.create_loader()


def _stay_in_region(params: dict[str, Any], **_: object) -> None:
    """Tell the client that it has followed the bucket to another region already.

    It would send the request again there: a second retry layer, and a wrong setting that only
    shows as slowness and transfer costs.
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _send_small_unasked(params: dict[str, Any], **_: object) -> None:
    """Do not ask first whether a small body may be sent (`Expect: 100-continue`): a round trip.

    Of a large one it is asked: a refusal is heard before the connection is cut off in mid-body.
    """
    if "Expect" in params["headers"]:
        length = determine_content_length(params["body"])
        if length is not None and length <= SMALL_BYTES:
            del params["headers"]["Expect"]


def _resolve_for_all_keys(client: S3Client) -> None:
    """Have the endpoint found once for a bucket, not for each key, which it does not depend on.

    Finding it, and even what it is found from, is a third of a request's cost. Where the client
    does that elsewhere, it is merely slower.
    """
    resolver: Any = getattr(client, "_ruleset_resolver", None)
    construct = getattr(resolver, "construct_endpoint", None)
    if construct is None:
        return
    found: dict[tuple[str, object], Any] = {}

    async def remembered(operation_model: Any, call_args: Any, request_context: Any) -> Any:
        key = (operation_model.name, (call_args or {}).get("Bucket"))
        if key not in found:
            found[key] = await construct(operation_model, call_args, request_context)
        return found[key]

    resolver.construct_endpoint = remembered


# -- credentials


async def _look(profile: str | None, region: str | None) -> Source | None:
    """Look through all places of credentials: a session keeps what it has read, so a new one."""
    core = _core()
    if profile is not None:
        core.set_config_variable("profile", profile)
    if region is not None:
        core.set_config_variable("region", region)
    try:
        return cast("Source | None", await core.get_credentials())
    except (RuntimeError, ValueError, LookupError) as error:  # a program's nonsense, most likely
        raise CredentialsUnavailable(f"no credentials can be had: {error!r}") from error


class _Credentials(AioCredentials):
    """Credentials as the client wants them: each request asks for what to sign it with."""

    def __init__(self, renewable: RenewableCredentials) -> None:
        super().__init__("", "", method="renewable")
        self._renewable = renewable

    async def get_frozen_credentials(self) -> Any:  # type: ignore[override]  # as its base does
        return await self._renewable.current()


class _Provider:
    """Gives a session its credentials."""

    def __init__(self, renewable: RenewableCredentials) -> None:
        self._renewable = renewable

    async def load_credentials(self) -> _Credentials:
        # What cannot be had for now is asked for again by the first request.
        with contextlib.suppress(OSError, *_TRANSIENT):
            await self._renewable.current()
        return _Credentials(self._renewable)


# -- time

_SIGNER = "bot-recorder-s3v4"
_SIGNING_TIME = "bot_recorder_signing_time"


class _TimedAuth(S3SigV4Auth):
    """Signs by a clock of ours: the client's signers ask the system's."""

    def _modify_request_before_signing(self, request: Any) -> None:
        # All that follows, the headers and the signature's scope, is made from this entry.
        request.context["timestamp"] = request.context[_SIGNING_TIME]
        super()._modify_request_before_signing(request)  # type: ignore[misc]  # not in the stubs


AUTH_TYPE_MAPS[_SIGNER] = _TimedAuth


class _TimedQueryAuth(S3SigV4QueryAuth):
    """The same for addresses."""

    def _modify_request_before_signing(self, request: Any) -> None:
        request.context["timestamp"] = request.context[_SIGNING_TIME]
        super()._modify_request_before_signing(request)  # type: ignore[misc]  # not in the stubs


async def presigned(connection: Connection, url: str, region: str, seconds: int) -> str:
    """Return an address that anybody may read for a while.

    The client's own way makes it of AWS's one address for all regions, which answers by sending
    elsewhere what was signed for here.

    Args:
        connection: Of the store.
        url: The object's, with all but unreserved characters percent-encoded.
        region: The bucket's.
        seconds: How long.
    """
    keys: Any = connection.given
    if connection.credentials is not None:
        keys = await connection.credentials.current()
    if keys is None:
        raise boto.NoCredentialsError
    request = AWSRequest(method="GET", url=url)
    request.context[_SIGNING_TIME] = connection.clock.now().strftime("%Y%m%dT%H%M%SZ")
    _TimedQueryAuth(keys, "s3", region, expires=seconds).add_auth(request)
    return str(request.url)


def _choose(
    clock: SigningClock, signature_version: str, context: dict[str, Any], **_: object
) -> str | None:
    """Return the signer for a request; None for the client's own."""
    if not clock.offset or signature_version not in ("v4", "s3v4"):
        return None
    context[_SIGNING_TIME] = clock.now().strftime("%Y%m%dT%H%M%SZ")
    return _SIGNER


# -- errors


@contextlib.asynccontextmanager
async def requesting(
    connection: Connection, op: str, key: str, *, bucket: str, region: str, where: str
) -> AsyncIterator[None]:
    """Make a request with the client, its errors turned into the store's; see `translated`.

    A refusal that new credentials or the server's time can mend is a `TransientError`.
    """
    signed = connection.clock.now()
    if connection.credentials is not None:
        connection.credentials.begin()
    with translated(op, key, bucket=bucket, region=region, where=where):
        try:
            yield
        except boto.ClientError as error:
            answer = _answer(error, op, key, bucket, region)
            mended = ""
            if answer.code in SKEW_CODES and connection.clock.corrected(signed, answer.headers):
                mended = f"{connection.clock.told()}, whose time is used from now on"
            elif await _renewed(connection, answer.code):
                mended = "the credentials have been renewed"
            raise to_error(answer, mended) from error


async def _renewed(connection: Connection, code: str) -> bool:
    if connection.credentials is None or code not in EXPIRED_CODES | REPLACED_CODES:
        return False
    return await connection.credentials.renewed(code)


@contextlib.contextmanager
def translated(op: str, key: str, *, bucket: str, region: str, where: str) -> Iterator[None]:
    """Turn the client's errors into the store's.

    Args:
        op: The store operation.
        key: The object key or prefix.
        bucket: The bucket.
        region: The region the client is set up for.
        where: The server, for people.
    """
    try:
        yield
    except boto.ClientError as error:
        raise to_error(_answer(error, op, key, bucket, region)) from error
    except _CLIENT_ERRORS as error:
        kind, hint = _classify(error)
        message = f"{op} {key!r} in bucket {bucket!r} at {where}: {error}"
        raise kind(message, op=op, key=key, code=type(error).__name__, hint=hint) from error


def _answer(error: boto.ClientError, op: str, key: str, bucket: str, region: str) -> Answer:
    details = cast("Mapping[str, Any]", error.response.get("Error", {}))
    metadata = cast("Mapping[str, Any]", error.response.get("ResponseMetadata", {}))
    return Answer(
        op=op,
        key=key,
        bucket=bucket,
        region=region,
        code=str(details.get("Code", "")),
        message=str(details.get("Message", "")),
        status=int(metadata.get("HTTPStatusCode", 0)),
        headers=metadata.get("HTTPHeaders", {}),
        error_region=str(details.get("Region", "")),
    )


def _classify(error: Exception) -> tuple[type[StoreError], str]:
    if isinstance(error, boto.FlexibleChecksumError):
        return ChecksumError, ""
    if isinstance(error, boto.NoCredentialsError | boto.PartialCredentialsError):
        return AccessDenied, _NO_CREDENTIALS
    if isinstance(error, boto.ProfileNotFound):
        return AccessDenied, "name a profile that ~/.aws/config has, or none"
    if isinstance(error, boto.SSOError | boto.TokenRetrievalError):
        return AccessDenied, "log in again: `aws sso login`"
    if isinstance(error, boto.SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
        return StoreError, "the endpoint's certificate is not trusted: set AWS_CA_BUNDLE"
    if isinstance(error, _TRANSIENT):
        return TransientError, ""
    if isinstance(error, aiohttp.ClientError | OSError):
        return TransientError, ""
    return InvalidRequest, ""


_TRANSIENT = (
    boto.HTTPClientError,
    boto.ConnectionError,
    boto.IncompleteReadError,
    boto.ResponseStreamingError,
    # Not an answer of S3 at all: a proxy's page, or one cut off.
    ResponseParserError,
    # Role and instance credentials come over the network, too.
    boto.CredentialRetrievalError,
    boto.MetadataRetrievalError,
    CredentialsUnavailable,
)

_CLIENT_ERRORS = (
    boto.BotoCoreError,
    CredentialsUnavailable,
    ResponseParserError,
    aiohttp.ClientError,
    OSError,
    ValueError,  # a malformed endpoint
)
