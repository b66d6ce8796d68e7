"""IAM permissions: what each thing the recorder does needs, as policy statements.

Names are those of the AWS Service Authorization Reference, "Actions, resources, and condition keys
for Amazon S3". `deploy/aws/iam-policy.json` is what `policy` returns for `EVERYTHING`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

Level = Literal["object", "bucket", "key"]

#: How an S3 or KMS refusal names what is missing, where it does.
_DENIED = re.compile(
    r'not authorized to perform: ([A-Za-z0-9-]+:[A-Za-z]+)(?: on resource: "?([^\s"]+))?'
)


@dataclass(frozen=True, slots=True)
class Grant:
    """One permission.

    Attributes:
        action: E.g. `s3:PutObject`.
        level: What it is granted on: objects below the prefix, the bucket, or a KMS key.
        sid: Name of the statement it stands in: who can do without it leaves that out.
    """

    action: str
    level: Level
    sid: str = "Further"


PUT = Grant("s3:PutObject", "object", "RecordCalls")
GET = Grant("s3:GetObject", "object", "RecordCalls")
DELETE = Grant("s3:DeleteObject", "object", "RecordCalls")
ABORT = Grant("s3:AbortMultipartUpload", "object", "RecordCalls")
LIST_PARTS = Grant("s3:ListMultipartUploadParts", "object", "RecordCalls")
TAG = Grant("s3:PutObjectTagging", "object", "TagRecordings")
LIST = Grant("s3:ListBucket", "bucket", "ListRecordings")
LIST_UPLOADS = Grant("s3:ListBucketMultipartUploads", "bucket", "ListRecordings")
LIFECYCLE = Grant("s3:GetLifecycleConfiguration", "bucket", "LetDoctorLook")
DATA_KEY = Grant("kms:GenerateDataKey", "key", "EncryptRecordings")
DECRYPT = Grant("kms:Decrypt", "key", "EncryptRecordings")

EVERYTHING = (PUT, GET, DELETE, ABORT, LIST_PARTS, TAG, LIST, LIST_UPLOADS, LIFECYCLE)
"""Of a bot, `recorder recover` and `recorder doctor`, without a KMS key."""


def partition(region: str) -> str:
    """Return the partition of a region (AWS General Reference, "ARN format")."""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def policy(
    bucket: str, prefix: str, grants: Iterable[Grant], *, region: str = "", key: str = ""
) -> dict[str, Any]:
    """Return the policy document that allows `grants` and nothing else.

    Args:
        bucket: The bucket's name.
        prefix: What all keys begin with, without slashes at its ends.
        grants: The permissions.
        region: Of the bucket; tells the partition.
        key: ARN of the KMS key; `*` stands for one that is not known.
    """
    arn = f"arn:{partition(region)}:s3:::{bucket}"
    resources = {
        "object": f"{arn}/{prefix}/*" if prefix else f"{arn}/*",
        "bucket": arn,
        "key": key if key.startswith("arn:") else "*",
    }
    statements: dict[tuple[str, Level], list[str]] = {}
    for grant in dict.fromkeys(grants):
        statements.setdefault((grant.sid, grant.level), []).append(grant.action)
    return {
        "Version": "2012-10-17",
        "Statement": [
            {"Sid": sid, "Effect": "Allow", "Action": actions, "Resource": resources[level]}
            for (sid, level), actions in statements.items()
        ],
    }


def named_in(message: str) -> Grant | None:
    """Return the permission that a refusal's own words say is missing, if they do."""
    match = _DENIED.search(message)
    if match is None:
        return None
    action = match[1]
    if action.startswith("kms:"):
        return Grant(action, "key", DATA_KEY.sid)
    known = next((one for one in EVERYTHING if one.action == action), None)
    return known or Grant(action, "object" if "/" in (match[2] or "") else "bucket")


def explicitly_denied(message: str) -> bool:
    """Return whether a policy forbids it, so that allowing it elsewhere does not help."""
    return "explicit deny" in message
