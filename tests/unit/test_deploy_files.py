"""What is in `deploy/` is valid, and says the same as the program and itself elsewhere."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from recorder.doctor.iam import EVERYTHING, policy
from recorder.settings import Settings
from recorder.settings_text import variables

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROGRAMS = Path(sys.executable).parent
KUBERNETES = "1.34"
USER = 10001

COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
DOCKERFILE = (DEPLOY / "Dockerfile").read_text()
POLICY = json.loads((DEPLOY / "aws" / "iam-policy.json").read_text())


def program(name: str, *words: object) -> subprocess.CompletedProcess[str]:
    command = [PROGRAMS / name, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


# -- containers ------------------------------------------------------------------------------------


def test_the_dockerfile_has_no_lint() -> None:
    done = program("hadolint", "deploy/Dockerfile")
    assert done.returncode == 0, done.stdout


def test_the_images_are_of_a_user_that_is_not_root_and_keep_what_must_outlive_them() -> None:
    assert f"USER {USER}:{USER}" in DOCKERFILE
    assert DOCKERFILE.index(f"USER {USER}") < DOCKERFILE.index("FROM base AS bot")
    assert "VOLUME /var/spool/recorder" in DOCKERFILE
    assert "RECORDER_SPOOL_DIR=/var/spool/recorder" in DOCKERFILE
    assert DOCKERFILE.count("HEALTHCHECK") == 2


def test_what_an_image_copies_is_there_and_nothing_else_is_sent() -> None:
    copied = [
        name
        for line in re.findall(r"^COPY (?!--from)(.+)$", DOCKERFILE, re.MULTILINE)
        for name in line.split()[:-1]
    ]
    assert "recorder" in copied
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
    assert "*" in ignored
    assert sorted(copied) == sorted(line[1:] for line in ignored if line.startswith("!"))
    for name in copied:
        assert (ROOT / name).exists(), name


def test_the_extras_that_an_image_asks_for_are_there() -> None:
    asked = set(re.findall(r"--extra (\S+)", DOCKERFILE))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert asked
    assert asked <= set(project["optional-dependencies"])


def test_compose_is_valid() -> None:
    done = program(
        "check-jsonschema", "--builtin-schema", "vendor.compose-spec", "deploy/compose.yaml"
    )
    assert done.returncode == 0, done.stdout


def test_services_are_confined_and_share_the_spool() -> None:
    for name, service in COMPOSE["services"].items():
        if name == "s3":
            continue
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "spool:/var/spool/recorder" in service["volumes"], name
        assert service["build"]["target"] in re.findall(r"AS (\w+)$", DOCKERFILE, re.MULTILINE)


def seconds(text: str) -> int:
    return int(text.removesuffix("s"))


def test_services_have_the_time_that_draining_takes() -> None:
    for name, rounds in (("bot", 2), ("webrtc", 2), ("recover", 1)):
        service = COMPOSE["services"][name]
        drain = int(service["environment"]["RECORDER_DRAIN_SECONDS"])
        assert seconds(service["stop_grace_period"]) > rounds * drain + 5, name


# -- settings --------------------------------------------------------------------------------------


def kubernetes(kind: str = "") -> list[dict[str, Any]]:
    found = []
    for path in sorted((DEPLOY / "kubernetes").glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            if document["kind"] != "Kustomization" and kind in ("", document["kind"]):
                found.append(document)
    return found


def environments() -> Iterator[Mapping[str, Any]]:
    for service in COMPOSE["services"].values():
        yield service.get("environment", {})
    for document in kubernetes("ConfigMap"):
        yield document["data"]


def test_every_setting_of_the_recorder_is_one() -> None:
    known = {one for name, field in Settings.model_fields.items() for one in variables(name, field)}
    used = {
        name for one in environments() for name in one if name.startswith(("RECORDER_", "AWS_"))
    }
    used |= set(re.findall(r"RECORDER_[A-Z_]+", (DEPLOY / "aws" / "recordings.yaml").read_text()))
    assert "RECORDER_BUCKET" in used
    assert used <= known


def test_the_settings_in_kubernetes_are_allowed(monkeypatch: pytest.MonkeyPatch) -> None:
    (data,) = (one["data"] for one in kubernetes("ConfigMap") if "RECORDER_BUCKET" in one["data"])
    for name, value in data.items():
        monkeypatch.setenv(name, value)
    settings = Settings(_env_file=None)
    assert settings.location.bucket == "my-calls"


# -- Kubernetes ------------------------------------------------------------------------------------


@pytest.mark.parametrize("document", kubernetes(), ids=lambda one: one["kind"])
def test_manifests_are_valid(document: dict[str, Any]) -> None:
    kubernetes_validate.validate(document, KUBERNETES, strict=True)


def test_a_manifest_that_is_not_valid_is_found_out() -> None:
    (wrong,) = kubernetes("StatefulSet")
    wrong["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, KUBERNETES, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kustomize_builds_all_of_it() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", "deploy/kubernetes"],  # noqa: S607 - wherever it is
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    built = list(yaml.safe_load_all(done.stdout))
    assert len(built) == len(kubernetes())
    assert "image: registry.example.com/bot-recorder-bot:" in done.stdout
    assert "image: registry.example.com/bot-recorder:" in done.stdout


def workloads() -> list[dict[str, Any]]:
    found = [*kubernetes("StatefulSet"), *kubernetes("Deployment")]
    assert len(found) == 2
    return found


@pytest.mark.parametrize("workload", workloads(), ids=lambda one: one["kind"])
def test_pods_keep_to_the_restricted_standard(workload: dict[str, Any]) -> None:
    """Kubernetes documentation, "Pod Security Standards", Restricted."""
    pod = workload["spec"]["template"]["spec"]
    context = pod["securityContext"]
    assert context["runAsNonRoot"] is True
    assert context["runAsUser"] == USER
    assert context["fsGroup"] == USER  # or the volume is not theirs
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    for one in [*pod.get("initContainers", ()), *pod["containers"]]:
        own = one["securityContext"]
        assert own["allowPrivilegeEscalation"] is False
        assert own["readOnlyRootFilesystem"] is True
        assert own["capabilities"] == {"drop": ["ALL"]}
        assert {"requests", "limits"} <= set(one["resources"])
        mounted = {mount["mountPath"] for mount in one["volumeMounts"]}
        assert mounted == {"/var/spool/recorder", "/tmp"}  # noqa: S108 - all that is written to
    kinds = {kind for volume in pod["volumes"] for kind in volume if kind != "name"}
    assert kinds == {"emptyDir"}


def test_the_spool_is_a_volume_that_comes_back() -> None:
    (bots,) = kubernetes("StatefulSet")
    (claim,) = bots["spec"]["volumeClaimTemplates"]
    assert claim["metadata"]["name"] == "spool"
    assert set(bots["spec"]["persistentVolumeClaimRetentionPolicy"].values()) == {"Retain"}
    (data,) = (one["data"] for one in kubernetes("ConfigMap") if "RECORDER_BUCKET" in one["data"])
    room = int(claim["spec"]["resources"]["requests"]["storage"].removesuffix("Gi"))
    assert int(data["RECORDER_SPOOL_MAX_BYTES"].removesuffix("GiB")) < room
    assert Path(data["RECORDER_SPOOL_DIR"]).parent == Path("/var/spool/recorder")


def test_pods_have_the_time_that_draining_takes() -> None:
    maps = {one["metadata"]["name"]: one["data"] for one in kubernetes("ConfigMap")}
    drain = int(maps["recorder-settings"]["RECORDER_DRAIN_SECONDS"])
    calls = int(maps["bot-settings"]["DRAIN_CALLS_SECONDS"])
    bots, recover = workloads()
    pod = bots["spec"]["template"]["spec"]
    assert pod["terminationGracePeriodSeconds"] == calls + 2 * drain + 30
    command = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
    assert command == ["python", "/opt/bot/drain.py"]
    assert recover["spec"]["template"]["spec"]["terminationGracePeriodSeconds"] > drain


def test_the_watch_is_probed_by_what_it_touches() -> None:
    _, recover = workloads()
    (container,) = recover["spec"]["template"]["spec"]["containers"]
    file = container["args"][container["args"].index("--heartbeat") + 1]
    assert container["args"][:2] == ["recover", "--watch"]
    assert file in container["livenessProbe"]["exec"]["command"][-1]
    assert f'"recover", "--watch", "--heartbeat", "{file}"' in DOCKERFILE


# -- AWS -------------------------------------------------------------------------------------------


class _Template(yaml.SafeLoader):
    """Reads CloudFormation's short forms, as `{tag: value}`."""


def _short_form(loader: yaml.SafeLoader, tag: str, node: yaml.Node) -> Any:
    if isinstance(node, yaml.ScalarNode):
        return {tag: loader.construct_scalar(node)}
    assert isinstance(node, yaml.SequenceNode)
    return {tag: loader.construct_sequence(node, deep=True)}


_Template.add_multi_constructor("!", _short_form)


def template() -> dict[str, Any]:
    text = (DEPLOY / "aws" / "recordings.yaml").read_text()
    document: dict[str, Any] = yaml.load(text, _Template)  # noqa: S506 - a safe loader
    return document


def test_the_template_has_no_lint() -> None:
    done = program("cfn-lint", "deploy/aws/recordings.yaml")
    assert done.returncode == 0, done.stdout


def test_the_policy_is_what_the_doctor_knows() -> None:
    assert policy("BUCKET", "PREFIX", EVERYTHING) == POLICY


def test_the_templates_policy_is_the_same() -> None:
    bots = template()["Resources"]["BotPolicy"]["Properties"]["PolicyDocument"]["Statement"]
    plain = [one for one in bots if "If" not in one]
    text = json.dumps(plain).replace("${AWS::Partition}", "aws")
    filled = json.loads(text.replace("${BucketName}", "BUCKET").replace("${Prefix}", "PREFIX"))
    for one in filled:
        one["Resource"] = one["Resource"]["Sub"]
    assert filled == POLICY["Statement"]


def test_a_message_is_hidden_for_longer_than_a_function_can_take() -> None:
    document = template()
    longest = document["Parameters"]["FunctionSeconds"]["MaxValue"]
    assert document["Resources"]["Events"]["Properties"]["VisibilityTimeout"] >= 6 * longest


def test_the_function_is_what_is_beside_it() -> None:
    function = template()["Resources"]["Function"]["Properties"]
    assert function["Handler"] == "handler.handler"
    assert function["Code"]["S3Bucket"] == {"Ref": "FunctionCodeBucket"}
