"""A backfill on a Ray cluster of several nodes, one of which is killed in mid-task.

Needs the extra `ray` (`make soak` has it); takes about half a minute.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from commands import PROGRAM
from complete import SECRET, noted, place, record, settings_for
from receiver import receiving

from recorder.embedded import EmbeddedS3
from recorder.stores import make_store

ray = pytest.importorskip("ray", reason="the extra `ray` is not installed")

pytestmark = [
    pytest.mark.soak,
    pytest.mark.timeout(300),
    # Ray's own: files and sockets of the processes that it starts.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

DAYS = ("2026-11-21", "2026-11-22", "2026-11-23")
OF_DAY = 6
PROMPT = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 500,
    "health_check_failure_threshold": 4,
}


@pytest.fixture
def cluster() -> Iterator[Any]:
    """A head that takes no work, and two nodes for one task each."""
    from ray.cluster_utils import Cluster

    made = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": PROMPT},
    )
    try:
        made.add_node(num_cpus=1)
        made.add_node(num_cpus=1)
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


async def test_a_node_that_is_killed_in_mid_task_loses_nothing(
    cluster: Any, seaweed: EmbeddedS3, tmp_path: Path
) -> None:
    async with receiving() as receiver:
        variables = {
            "bucket": f"s3://{seaweed.bucket}/{tmp_path.name}",
            "aws_endpoint_url_s3": seaweed.endpoint_url,
            "aws_access_key_id": seaweed.access_key,
            "aws_secret_access_key": seaweed.secret_key,
        }
        settings = settings_for(tmp_path, **variables)
        names = {day: [f"call-{day}-{number}" for number in range(OF_DAY)] for day in DAYS}
        for day in DAYS:
            await record(settings, *names[day], day=day, seconds=0.3)
        environment = {
            **os.environ,
            "RECORDER_BUCKET": settings.bucket,
            "AWS_ENDPOINT_URL_S3": seaweed.endpoint_url,
            "AWS_ACCESS_KEY_ID": seaweed.access_key,
            "AWS_SECRET_ACCESS_KEY": seaweed.secret_key,
            "RECORDER_WEBHOOK_URL": receiver.url,
            "RECORDER_WEBHOOK_SECRET": SECRET,
            "RECORDER_WEBHOOK_TIMEOUT_SECONDS": "90",
        }

        async def backfill() -> asyncio.subprocess.Process:
            words = ["--engine", "ray", "--ray-address", cluster.address]
            return await asyncio.create_subprocess_exec(
                str(PROGRAM),
                "backfill",
                *words,
                "--steps",
                "verify,webhook",
                "--json",
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                env=environment,
                cwd=tmp_path,
            )

        receiver.hold.clear()
        process = await backfill()
        try:
            async with asyncio.timeout(60):
                while receiver.held < 2 and process.returncode is None:  # noqa: ASYNC110 - of others
                    await asyncio.sleep(0.1)
            assert process.returncode is None, (await process.communicate())[1].decode()
            # Both nodes are in mid-task now: each waits for an answer to its webhook.
            doomed = next(iter(cluster.worker_nodes))
            await asyncio.to_thread(cluster.remove_node, doomed, allow_graceful=False)
            async with asyncio.timeout(60):
                while not receiver.hung_up:  # noqa: ASYNC110 - of others
                    await asyncio.sleep(0.1)
            receiver.hold.set()
            out, err = await asyncio.wait_for(process.communicate(), 90)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode == 0, err.decode()
        told = [json.loads(line) for line in out.decode().splitlines()]
        expected = sorted(name for day in DAYS for name in names[day])
        assert sorted(one["recording_id"] for one in told) == expected
        assert f"{len(expected)} recordings at" in err.decode()
        async with make_store(settings) as store:
            for day in DAYS:
                for name in names[day]:
                    document = await noted(store, name, day)
                    assert document["claim"] is None
                    for step in ("verify", "webhook"):
                        assert document["steps"][step]["state"] == "done", (name, step)
            assert await store.head(place(names[DAYS[0]][0], DAYS[0]).record_key)
        # One was posted by the node that died, and once more, as the same, by the other one.
        assert len(receiver.ids) == len(expected)
        assert sorted(receiver.ids.values()) == [1] * (len(expected) - 1) + [2]

        again = await backfill()
        out, err = await asyncio.wait_for(again.communicate(), 90)
        assert again.returncode == 0, err.decode()
        assert {json.loads(line)["verdict"] for line in out.decode().splitlines()} == {"unchanged"}
        assert sum(receiver.ids.values()) == len(expected) + 1
