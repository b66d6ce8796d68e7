"""Commands as they are typed, on a store in a local folder."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from commands import Run, squeezed, typed_in

from recorder.containers.wav import wav_header
from uploader.local import LocalStore
from uploader.store import MIN_PART_BYTES

FOLDER = "dt=2026-11-23/call/"


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Return a function that types a command; the bucket is a folder."""
    return typed_in(tmp_path, monkeypatch)


def in_store(tmp_path: Path, work: Callable[[LocalStore], Awaitable[None]]) -> None:
    async def open_and_work() -> None:
        async with LocalStore(tmp_path / "bucket") as store:
            await work(store)

    asyncio.run(open_and_work())


def manifest(**changes: Any) -> bytes:
    document = {
        "version": 1,
        "owner": "x",
        "epoch": 2,
        "revision": 3,
        "state": "recording",
        "started_at": "2026-11-23T10:00:00+00:00",
        "sample_rate": 24000,
        "samples": 144000,
        "duration_seconds": 6.0,
        "tracks": [{"name": "user", "source": "capture", "participant": "\x1b[31mann"}],
        "chunks": [
            {"number": 1, "first_sample": 0, "samples": 72000, "bytes": 144080},
            {"number": 2, "first_sample": 72000, "samples": 72000, "bytes": 144080},
        ],
        "chunks_kept": False,
        "outputs": [],
        "turns": [],
        "gaps": [],
        **changes,
    }
    return json.dumps(document).encode()


def line_with(text: str, *words: str) -> str:
    (line,) = (line for line in text.splitlines() if all(word in line for word in words))
    return line


# -- of the program itself -----------------------------------------------------------------------


def test_version(run: Run) -> None:
    assert run("--version").output == f"bot-recorder {version('bot-recorder')}\n"


@pytest.mark.parametrize("command", ["record", "ls", "show", "doctor", "demo", "settings"])
def test_every_command_says_what_it_does(run: Run, command: str) -> None:
    listed = run("--help").output
    assert re.search(rf"\b{command}\b +\S", listed)
    assert run(command, "--help").exit_code == 0


# -- settings --------------------------------------------------------------------------------------


def test_settings_in_effect_without_secrets(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "very-secret")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "who-am-i")
    monkeypatch.setenv("RECORDER_CHUNK_SECONDS", "7.5")
    result = run("settings")
    assert result.exit_code == 0
    assert (
        squeezed(line_with(result.stdout, "RECORDER_CHUNK_SECONDS")) == "RECORDER_CHUNK_SECONDS 7.5"
    )
    assert squeezed(line_with(result.stdout, "RECORDER_SAMPLE_RATE")).endswith(" 24000 default")
    as_json = run("settings", "--json")
    assert json.loads(as_json.stdout)["chunk_seconds"] == 7.5
    for output in (result.output, as_json.output):
        assert "very-secret" not in output
        assert "who-am-i" not in output


def test_the_option_comes_before_the_variable(run: Run) -> None:
    assert json.loads(run("settings", "--json", "--bucket", "other").stdout)["bucket"] == "other"


def test_a_misspelt_variable_is_told(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECORDER_BUKET", "x")
    result = run("settings")
    assert result.exit_code == 0
    assert "RECORDER_BUKET" in result.stderr


# -- wrong input -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["record"], "nothing to record"),
        (["record", "--user", "none.wav"], "none.wav"),
        (["record", "--user", "u.wav", "--track", "user=u.wav"], "two files"),
        (["record", "--track", "x"], "NAME=FILE"),
        (["record", "--track", "x="], "NAME=FILE"),
        (["record", "--track", "UPPER=u.wav"], "UPPER"),
        (["record", "--track", "audio=u.wav"], "audio"),
        (["record", "--user", "u.wav", "--speed", "-1"], "--speed -1"),
        (["record", "--user", "u.wav", "--speed", "nan"], "--speed nan"),
        (["record", "--user", "u.wav", "--speed", "inf"], "--speed inf"),
        (["record", "--user", "u.wav", "--id", "../up"], "../up"),
        (["record", "--user", "u.wav", "--metadata", "a"], "NAME=VALUE"),
        (["record", "--user", "u.wav", "--metadata", "=b"], "NAME=VALUE"),
        (["record", "--user", "u.wav", "--metadata", "a=1", "--metadata", "a=2"], "twice"),
        (["record", "--user", "u.wav", "--metadata", "a b=c"], "a b"),
        (["record", "--user", "u.wav", "--outputs", "vinyl"], "vinyl"),
        (["record", "--user", "u.wav", "--bucket", "No_Bucket"], "No_Bucket"),
        (["ls", "--day", "2026-13-01"], "--day"),
        (["ls", "--day", "20261123"], "--day"),
        (["ls", "--day", "2026-W01-1"], "--day"),
        (["ls", "--limit", "0"], "--limit 0"),
        (["ls", "--bucket", "ftp://x"], "ftp://x"),
        (["show", "a/b"], "a/b"),
        (["show", "call", "--day", "today"], "today"),
        (["settings", "--bucket", "x"], "bucket"),
        (["demo", "--seconds", "0"], "--seconds 0"),
        (["demo", "--seconds", "nan"], "--seconds nan"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_wrong_input_is_one_line_and_exit_code_2(
    run: Run, tmp_path: Path, words: list[str], says: str
) -> None:
    (tmp_path / "u.wav").write_bytes(wav_header(240, 24000, 1) + bytes(480))
    result = run(*words)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1
    assert says in result.stderr


@pytest.mark.parametrize("words", [["ls"], ["show", "call"], ["settings"]], ids=" ".join)
def test_no_bucket_is_told(run: Run, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> None:
    monkeypatch.delenv("RECORDER_BUCKET")
    result = run(*words)
    assert result.exit_code == 2
    assert result.stderr.startswith("Error: RECORDER_BUCKET is not set")


@pytest.mark.parametrize("words", [["ls"], ["show", "call"]], ids=" ".join)
def test_a_folder_that_is_not_there_is_a_failure(run: Run, words: list[str]) -> None:
    result = run(*words, "--bucket", "file:///proc/none/at/all")
    assert result.exit_code == 1
    assert result.stderr.startswith("Error: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("missing", ["pipecat", "weed"])
def test_a_demo_without_its_extra(
    run: Run, monkeypatch: pytest.MonkeyPatch, missing: str, tmp_path: Path
) -> None:
    if missing == "pipecat":
        monkeypatch.setattr("recorder.demo.run.find_spec", lambda name: None)
    else:
        monkeypatch.setattr("recorder.embedded.shutil.which", lambda *_, **__: None)
    result = run("demo", "--data-dir", tmp_path / "demo")
    assert result.exit_code == 1
    assert "pip install 'bot-recorder[demo]'" in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "demo").exists()


# -- ls --------------------------------------------------------------------------------------------


def test_an_empty_bucket_has_no_recordings(run: Run) -> None:
    assert "no recordings" in run("ls").stdout
    assert json.loads(run("ls", "--json").stdout) == []


def test_ls(run: Run, tmp_path: Path) -> None:
    async def fill(store: LocalStore) -> None:
        outputs = [{"name": "stereo", "state": "completed", "bytes": 2048}, {"bytes": 1024}]
        done = manifest(state="completed", started_at="2026-11-23T11:00:00+00:00", outputs=outputs)
        await store.put("dt=2026-11-23/done/manifest.json", done)
        await store.put(f"{FOLDER}manifest.json", manifest())
        await store.create_multipart(f"{FOLDER}audio.wav")

    in_store(tmp_path, fill)
    result = run("ls")
    assert result.exit_code == 0
    head, done, call = result.stdout.splitlines()
    assert head.startswith("recording")
    assert squeezed(done) == "done 2026-11-23 11:00 completed 6.00 s 2 3.0 KiB"
    remark = r"recording, \d+ (s|min) ago, 1 upload"
    assert re.fullmatch(rf"call 2026-11-23 10:00 {remark} 6.00 s 2 0 B", squeezed(call))
    first, second = json.loads(run("ls", "--json").stdout)
    assert (first["recording_id"], first["output_bytes"], first["uploads"]) == ("done", 3072, 0)
    assert (second["state"], second["chunks"], second["uploads"]) == ("recording", 2, 1)


def test_ls_says_when_there_are_more(run: Run, tmp_path: Path) -> None:
    async def fill(store: LocalStore) -> None:
        for name in ("a", "b", "c"):
            await store.put(f"dt=2026-11-23/{name}/manifest.json", manifest())

    in_store(tmp_path, fill)
    assert "--limit 4" in run("ls", "--limit", 2).stdout
    assert "--limit" not in run("ls", "--limit", 3).stdout
    assert len(json.loads(run("ls", "--limit", 2, "--json").stdout)) == 2
    assert json.loads(run("ls", "--day", "2026-11-22", "--json").stdout) == []


# -- show ------------------------------------------------------------------------------------------


def test_show_a_recording_that_goes_on(run: Run, tmp_path: Path) -> None:
    async def fill(store: LocalStore) -> None:
        await store.put(f"{FOLDER}manifest.json", manifest(metadata={"customer": "[b]7[/b]"}))
        await store.put(f"{FOLDER}chunks/000001.wav", b"1")
        await store.put(f"{FOLDER}chunks/000003.wav", b"3")
        upload = await store.create_multipart(f"{FOLDER}audio.wav")
        await store.upload_part(f"{FOLDER}audio.wav", upload, 2, bytes(MIN_PART_BYTES))

    in_store(tmp_path, fill)
    result = run("show", "call")
    assert result.exit_code == 0
    text = result.stdout
    assert squeezed(line_with(text, "state")) == "state recording"
    assert "customer=[b]7[/b]" in text
    assert r"user (capture, '\x1b[31mann')" in text
    assert "epoch 2, revision 3" in text
    assert squeezed(line_with(text, "72,000", "stored")) == "1 0 72,000 140.7 KiB stored"
    assert squeezed(line_with(text, "missing")).startswith("2 ")
    assert "1 more stored" in text
    assert "2 (5.0 MiB)" in line_with(text, "audio.wav")
    found = json.loads(run("show", "call", "--json").stdout)
    assert found["manifest"]["samples"] == 144000
    assert [item["key"].removeprefix(FOLDER) for item in found["objects"]] == [
        "chunks/000001.wav",
        "chunks/000003.wav",
        "manifest.json",
    ]
    ((upload,),) = [found["uploads"]]
    assert upload["parts"] == [{"number": 2, "bytes": MIN_PART_BYTES}]


def test_show_a_recording_that_is_complete(run: Run, tmp_path: Path) -> None:
    def output(name: str, size: int) -> dict[str, Any]:
        key = f"{FOLDER}{name}.wav"
        return {"name": name, "key": key, "state": "completed", "bytes": size, "parts": 1}

    async def fill(store: LocalStore) -> None:
        content = manifest(
            state="completed_with_gaps",
            outputs=[output("audio", 4), output("gone", 4), output("cut", 9)],
            turns=[
                {"number": 1, "track": "bot", "start": 0, "end": 36000, "interrupted": True},
                {"number": 2, "track": "user", "start": 36000, "end": None},
            ],
            gaps=[{"track": "user", "start": 100, "end": 5000, "reason": "spool [full]"}],
        )
        await store.put(f"{FOLDER}manifest.json", content)
        await store.put(f"{FOLDER}audio.wav", b"1234")
        await store.put(f"{FOLDER}cut.wav", b"1234")

    in_store(tmp_path, fill)
    text = run("show", "call").stdout
    assert "missing" not in line_with(text, "audio.wav")
    assert "completed, but the object is missing" in line_with(text, "gone.wav")
    assert "completed, but the object has 4 bytes" in line_with(text, "cut.wav")
    assert text.count("removed, outputs are complete") == 2
    assert squeezed(line_with(text, "interrupted")) == "1 bot 0.00 s 1.50 s interrupted"
    assert "goes on" in line_with(text, "user", "1.50")
    assert squeezed(line_with(text, "[full]")) == "user 100 5,000 spool [full]"


def test_a_chunk_that_was_to_be_kept_and_is_gone_is_missing(run: Run, tmp_path: Path) -> None:
    async def fill(store: LocalStore) -> None:
        await store.put(f"{FOLDER}manifest.json", manifest(state="completed", chunks_kept=True))
        await store.put(f"{FOLDER}chunks/000001.wav", b"1")

    in_store(tmp_path, fill)
    text = run("show", "call").stdout
    assert squeezed(line_with(text, "missing")).startswith("2 ")
    assert "removed" not in text


def test_show_says_where_else_the_id_was_used(run: Run, tmp_path: Path) -> None:
    async def fill(store: LocalStore) -> None:
        for day in (22, 23):
            await store.put(f"dt=2026-11-{day}/call/manifest.json", manifest(samples=day))

    in_store(tmp_path, fill)
    assert "2026-11-22" in line_with(run("show", "call").stdout, "also on")
    older = run("show", "call", "--day", "2026-11-22", "--json")
    assert json.loads(older.stdout)["manifest"]["samples"] == 22


def test_an_unknown_id_is_one_line_and_exit_code_1(run: Run) -> None:
    result = run("show", "nobody")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nobody" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "changes",
    [
        {
            "state": "\x1b[2J[red]",
            "tracks": [{"name": "\x1b]0;title\x07"}],
            "metadata": {"\x1b[1m": "\r\n"},
            "outputs": [{"name": "\x1b[5m", "key": "\x9b", "reason": "\x1b[0m", "state": 5}],
            "gaps": [{"reason": "\x1b[H"}],
        },
        {"chunks": {}, "outputs": "x", "turns": 5, "gaps": None, "tracks": [[]], "tags": [1]},
        {"samples": "many", "sample_rate": 0, "turns": [{"start": 1}], "started_at": 5},
        {"samples": float("inf"), "sample_rate": -1, "chunks": [{"number": float("nan")}]},
    ],
    ids=["control characters", "wrong kinds", "wrong values", "no numbers"],
)
def test_a_hostile_manifest_is_only_text(run: Run, tmp_path: Path, changes: dict[str, Any]) -> None:
    async def fill(store: LocalStore) -> None:
        await store.put(f"{FOLDER}manifest.json", manifest(**changes))

    in_store(tmp_path, fill)
    for words in (["ls"], ["ls", "--json"], ["show", "call"], ["show", "call", "--json"]):
        result = run(*words)
        assert result.exit_code == 0, result.output
        assert not re.search(r"[\x00-\x09\x0b-\x1f\x7f-\x9f]", result.output)
        if "--json" in words:
            json.loads(result.stdout, parse_constant=lambda name: pytest.fail(name))


def test_a_recording_without_a_readable_manifest_is_shown(run: Run, tmp_path: Path) -> None:
    async def fill(store: LocalStore) -> None:
        await store.put(f"{FOLDER}manifest.json", b"no json")
        await store.put(f"{FOLDER}chunks/000001.wav", b"1")

    in_store(tmp_path, fill)
    result = run("show", "call")
    assert result.exit_code == 0
    assert "unreadable" in result.stdout
    assert "is not JSON" in result.stdout
    assert "1 more stored" in result.stdout
