"""The arrows between packages, and what is reached from one place only."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILES = sorted([*ROOT.glob("recorder/**/*.py"), *ROOT.glob("uploader/**/*.py")])


def imported(path: Path) -> set[str]:
    """Return the top-level names of all modules a file imports."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.add(node.module)
    return names


def importers(*packages: str) -> set[str]:
    return {
        path.relative_to(ROOT).as_posix()
        for path in FILES
        if any(name.split(".")[0] in packages for name in imported(path))
    }


def test_the_uploader_knows_no_recorder() -> None:
    assert not [path for path in importers("recorder") if path.startswith("uploader/")]


def test_the_clients_of_s3_and_sqs_are_imported_in_one_file_each() -> None:
    assert importers("aioboto3", "aiobotocore", "boto3", "botocore") == {
        "uploader/s3_client.py",
        "recorder/postprocess/sqs.py",
    }


def test_ray_is_imported_by_its_engine_only() -> None:
    assert importers("ray") == {"recorder/postprocess/backfill_ray.py"}


def test_ffmpegs_libraries_are_imported_in_one_file_for_each_way() -> None:
    assert importers("av") == {
        "recorder/imports/av_audio.py",  # decodes
        "recorder/containers/opus.py",  # encodes
    }


def test_ffmpegs_libraries_are_not_needed_to_record() -> None:
    """They are an extra: the module of Opus is there without them."""
    for node in ast.parse((ROOT / "recorder/containers/opus.py").read_text()).body:
        if isinstance(node, ast.Import):
            assert "av" not in [alias.name for alias in node.names]


def test_pipecat_is_imported_by_its_adapter_and_the_demo_only() -> None:
    allowed = ("recorder/pipecat", "recorder/demo/")
    assert not [path for path in importers("pipecat") if not path.startswith(allowed)]


def test_pipecat_is_not_needed_to_record() -> None:
    for path in ("recorder/__init__.py", "recorder/service.py", "recorder/cli/__init__.py"):
        assert not any("pipecat" in name for name in imported(ROOT / path))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_the_environment_is_read_in_one_file(path: Path) -> None:
    if path.relative_to(ROOT).as_posix() == "recorder/settings.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            read = node.value.id == "os" and node.attr in ("environ", "getenv", "environb")
            assert not read, f"line {node.lineno} reads the environment"
