"""What `deploy/` starts and makes, on servers that run here."""

from __future__ import annotations

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote_plus

import aiohttp
import boto3
import pytest
import yaml
from iam_moto import BATCH_DELETES_QUIRK, Account, iam_account

from recorder import Recorder, Settings, State
from recorder.doctor import Diagnosis, Status, examine
from recorder.doctor.cost import Usage, load_of
from recorder.embedded import _SOCKETS, EmbeddedS3, find_weed

DEPLOY = Path(__file__).parents[2] / "deploy"
SAMPLES = b"\1\2" * 48_000


async def diagnosis(settings: Settings) -> Diagnosis:
    return await examine(settings, load_of(settings, Usage()), 1, ("bucket", "lifecycle"))


# -- Compose ---------------------------------------------------------------------------------------


def interpolated(text: str) -> str:
    """Fill in variables by their defaults (Compose specification, "Interpolation")."""
    return re.sub(r"\$\{[A-Z0-9_]+:-([^}]*)\}", r"\1", text)


async def test_the_s3_server_of_compose_is_fit_to_record_to(tmp_path: Path) -> None:
    """Its program, arguments, identities and probe, on other ports and in another folder."""
    compose = yaml.safe_load(interpolated((DEPLOY / "compose.yaml").read_text()))
    server = compose["services"]["s3"]
    config = tmp_path / "s3.json"
    config.write_text(compose["configs"]["s3-identities"]["content"])
    ports = EmbeddedS3(tmp_path, bucket="calls")._choose_ports()
    replaced = {"-dir": tmp_path / "data", "-s3.config": config, "-ip.bind": "127.0.0.1"}
    replaced |= {f"-{name}": port for name, port in ports.items()}
    (tmp_path / "data").mkdir()
    command = [find_weed(), "-logtostderr=false", f"-logdir={tmp_path}", server["command"][0]]
    for word in server["command"][1:]:
        name, _, value = word.partition("=")
        command.append(f"{name}={replaced.pop(name, value)}")
    command += [f"{name}={value}" for name, value in replaced.items()] + ["-ip=127.0.0.1"]
    environment = {"PATH": os.defpath, "HOME": str(tmp_path), **server["environment"]}
    start = partial(subprocess.Popen, command, env=environment, cwd=tmp_path)
    with await asyncio.to_thread(start) as process:
        try:
            probed = server["healthcheck"]["test"][-1].replace("8333", str(ports["s3.port"]))
            await answered(probed)
            bot = compose["services"]["bot"]["environment"]
            settings = Settings(
                bucket=bot["RECORDER_BUCKET"],
                spool_dir=tmp_path / "spool",
                aws_region=bot["AWS_REGION"],
                aws_endpoint_url_s3=bot["AWS_ENDPOINT_URL_S3"].replace(
                    "s3:8333", f"127.0.0.1:{ports['s3.port']}"
                ),
                aws_access_key_id=bot["AWS_ACCESS_KEY_ID"],
                aws_secret_access_key=bot["AWS_SECRET_ACCESS_KEY"],
            )
            async with asyncio.timeout(30):
                while not (found := await diagnosis(settings)).fit:  # noqa: ASYNC110
                    await asyncio.sleep(0.2)  # its volumes come up last
            assert [one.name for one in found.of(Status.WARN)] == ["uploads in progress"]
        finally:
            process.kill()
            for port in ports.values():  # what a killed server leaves
                for path in _SOCKETS.glob(f"seaweedfs-*-{port}.sock"):
                    path.unlink(missing_ok=True)


async def answered(url: str) -> None:
    async with asyncio.timeout(30), aiohttp.ClientSession() as client:
        while True:
            try:
                async with client.get(url) as answer:
                    if answer.status == 200:
                        return
            except aiohttp.ClientError:
                pass
            await asyncio.sleep(0.1)


# -- CloudFormation --------------------------------------------------------------------------------

BUCKET, PREFIX = "recordings", "production"
PARAMETERS = {
    "BucketName": BUCKET,
    "Prefix": PREFIX,
    "RetentionDays": "90",
    "Versioning": "true",
    # Without it, moto leaves a hole in a policy's statements where AWS leaves one out.
    "KmsKeyArn": "arn:aws:kms:us-east-1:123456789012:key/1234abcd-12ab-34cd-56ef-1234567890ab",
    "FunctionCodeBucket": "code",
    "FunctionCodeKey": "function.zip",
    "AlarmEmail": "somebody@example.com",
}
EMPTY_ZIP = b"PK\5\6" + bytes(18)


class Stack:
    """The template, made on moto.

    Attributes:
        account: Where.
        outputs: Of the stack.
        states: Of its resources, by name.
    """

    def __init__(self, account: Account) -> None:
        self.account = account
        options: dict[str, Any] = {
            "endpoint_url": account.endpoint_url,
            "region_name": "us-east-1",
            "aws_access_key_id": "root",
            "aws_secret_access_key": "root",
        }
        self.iam, self.sqs = boto3.client("iam", **options), boto3.client("sqs", **options)
        account.s3.put_object(Bucket="code", Key="function.zip", Body=EMPTY_ZIP)
        formation = boto3.client("cloudformation", **options)
        formation.create_stack(
            StackName="calls",
            TemplateBody=(DEPLOY / "aws" / "recordings.yaml").read_text(),
            Capabilities=["CAPABILITY_IAM"],
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value}
                for name, value in PARAMETERS.items()
            ],
        )
        (stack,) = formation.describe_stacks(StackName="calls")["Stacks"]
        self.state = stack["StackStatus"]
        self.outputs = {one["OutputKey"]: one["OutputValue"] for one in stack["Outputs"]}
        self.template = formation.get_template(StackName="calls")["TemplateBody"]

    def bot_policy(self) -> dict[str, Any]:
        arn = self.outputs["BotPolicyArn"]
        version = self.iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
        found = self.iam.get_policy_version(PolicyArn=arn, VersionId=version)
        document: dict[str, Any] = found["PolicyVersion"]["Document"]
        return document

    def messages(self) -> Iterator[dict[str, Any]]:
        url = self.outputs["EventsQueueUrl"]
        while found := self.sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get(
            "Messages"
        ):
            yield from (json.loads(one["Body"]) for one in found)

    def listen(self) -> None:
        """Set the bucket's notifications as the template has them, which moto does not do."""
        queue = self.sqs.get_queue_attributes(
            QueueUrl=self.outputs["EventsQueueUrl"], AttributeNames=["QueueArn"]
        )
        rules = [
            {"Name": "prefix", "Value": f"{PREFIX}/dt="},
            {"Name": "suffix", "Value": "/manifest.json"},
        ]
        for one in rules:  # that these are the template's
            assert one["Value"].replace(PREFIX, "${Prefix}") in self.template
        self.account.s3.put_bucket_notification_configuration(
            Bucket=BUCKET,
            NotificationConfiguration={
                "QueueConfigurations": [
                    {
                        "QueueArn": queue["Attributes"]["QueueArn"],
                        "Events": ["s3:ObjectCreated:*"],
                        "Filter": {"Key": {"FilterRules": rules}},
                    }
                ]
            },
        )


@pytest.fixture(scope="module")
def stack(clean_environment: None) -> Iterator[Stack]:
    with iam_account("code") as account:
        yield Stack(account)


def bot_settings(stack: Stack, folder: Path) -> Settings:
    return Settings(
        bucket=stack.outputs["RecorderBucket"],
        spool_dir=folder / "spool",
        chunk_seconds=0.5,
        tags={"team": "voice"},
        kms_key_id=PARAMETERS["KmsKeyArn"],
        aws_region="us-east-1",
        aws_endpoint_url_s3=stack.account.endpoint_url,
        aws_access_key_id=stack.account.access_key,
        aws_secret_access_key=stack.account.secret_key,
    )


@pytest.mark.soak
async def test_what_a_stack_allows_bots_is_enough(stack: Stack, tmp_path: Path) -> None:
    assert stack.state == "CREATE_COMPLETE"
    policy = stack.bot_policy()
    actions = [action for one in policy["Statement"] for action in one["Action"]]
    assert {"kms:GenerateDataKey", "kms:Decrypt"} <= set(actions)
    quirk = {
        "Effect": "Allow",
        "Action": BATCH_DELETES_QUIRK,
        "Resource": f"arn:aws:s3:::{BUCKET}",
    }
    policy["Statement"].append(quirk)
    settings = bot_settings(stack, tmp_path)
    with stack.account.allowed(policy):
        found = await diagnosis(settings)
    assert found.fit
    assert found.policy is None


@pytest.mark.soak
async def test_each_manifest_that_is_written_is_told_and_nothing_else(
    stack: Stack, tmp_path: Path
) -> None:
    stack.listen()
    assert not [one for one in stack.messages() if "Records" in one]
    async with Recorder(bot_settings(stack, tmp_path)) as recorder:
        async with recorder.start() as call:
            call.write("user", SAMPLES, 24_000)
        assert call.result is not None
        assert call.result.state is State.COMPLETED
    told = [record for one in stack.messages() for record in one.get("Records", ())]
    keys = {unquote_plus(record["s3"]["object"]["key"]) for record in told}
    assert len(keys) == 1
    assert keys.pop().endswith(f"{call.result.recording_id}/manifest.json")
    assert 3 <= len(told) <= 2 * call.result.chunks + 4
