"""The cloud function's template: by CloudFormation's own rules, and made on moto's server."""

from __future__ import annotations

import importlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import aioboto3
import pytest

LAMBDA = Path(__file__).parents[2] / "deploy" / "lambda"

pytestmark = [
    pytest.mark.soak,
    pytest.mark.filterwarnings("ignore:Tried to parse AWS..SQS..QueuePolicy:UserWarning"),
]


def test_it_is_a_template() -> None:
    program = Path(sys.executable).with_name("cfn-lint")
    done = subprocess.run([program, LAMBDA / "template.yaml"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("prefix", ["", "production/a"])
async def test_what_it_makes(moto_url: str, monkeypatch: pytest.MonkeyPatch, prefix: str) -> None:
    session = aioboto3.Session()
    stack = f"calls{len(prefix)}"
    async with (
        session.client("s3", endpoint_url=moto_url) as s3,
        session.client("cloudformation", endpoint_url=moto_url) as cloud,
        session.client("sqs", endpoint_url=moto_url) as sqs,
        session.client("lambda", endpoint_url=moto_url) as functions,
    ):
        code = io.BytesIO()
        with zipfile.ZipFile(code, "w") as packed:
            packed.write(LAMBDA / "handler.py", "handler.py")
        await s3.put_object(Bucket="calls", Key="code/function.zip", Body=code.getvalue())
        given = {
            "BucketName": "calls",
            "Prefix": prefix,
            "CodeBucket": "calls",
            "CodeKey": "code/function.zip",
        }
        await cloud.create_stack(
            StackName=stack,
            TemplateBody=(LAMBDA / "template.yaml").read_text(),
            Parameters=[
                {"ParameterKey": name, "ParameterValue": value} for name, value in given.items()
            ],
            Capabilities=["CAPABILITY_IAM"],
        )
        [made] = (await cloud.describe_stacks(StackName=stack))["Stacks"]
        assert made["StackStatus"] == "CREATE_COMPLETE"
        outputs = {one["OutputKey"]: one["OutputValue"] for one in made["Outputs"]}
        answer = await sqs.get_queue_attributes(
            QueueUrl=outputs["QueueUrl"], AttributeNames=["All"]
        )
        redrive = json.loads(answer["Attributes"]["RedrivePolicy"])
        assert redrive["deadLetterTargetArn"].endswith(outputs["DeadLetterQueueUrl"].split("/")[-1])
        mappings = (await functions.list_event_source_mappings())["EventSourceMappings"]
        [mapping] = [one for one in mappings if one["EventSourceArn"] == outputs["QueueArn"]]
        assert mapping["FunctionResponseTypes"] == ["ReportBatchItemFailures"]
        function = await functions.get_function_configuration(FunctionName=mapping["FunctionArn"])
        assert int(answer["Attributes"]["VisibilityTimeout"]) == 6 * function["Timeout"]
        assert function["Environment"]["Variables"]["RECORDER_PREFIX"] == prefix
    module, _, name = function["Handler"].partition(".")
    monkeypatch.syspath_prepend(str(LAMBDA))
    assert callable(getattr(importlib.import_module(module), name))
