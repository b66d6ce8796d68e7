"""Opens the store that the settings name."""

from __future__ import annotations

from recorder.settings import Settings
from uploader.local import LocalStore
from uploader.store import Store


def make_store(settings: Settings) -> Store:
    """Return the store the settings name, not yet opened."""
    location = settings.location
    if location.path is not None:
        return LocalStore(location.path, location.prefix)
    # The S3 client takes a second to import: only who uses it waits for it.
    from uploader.s3 import S3Store

    key, secret = settings.aws_access_key_id, settings.aws_secret_access_key
    token = settings.aws_session_token
    return S3Store(
        location.bucket,
        location.prefix,
        region=settings.aws_region,
        endpoint_url=settings.aws_endpoint_url_s3,
        # An explicit profile would win over credentials from the environment.
        profile=None if key else settings.aws_profile,
        kms_key_id=settings.kms_key_id,
        access_key=key.get_secret_value() if key else None,
        secret_key=secret.get_secret_value() if secret else None,
        session_token=token.get_secret_value() if token else None,
    )
