"""`recorder worker`: works on what a queue says is complete, until a signal."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from recorder.cli import options, output, runtime
from recorder.settings import Settings, SettingsError


def worker(
    queue_url: Annotated[
        str | None,
        typer.Option(metavar="URL", help="Instead of RECORDER_POSTPROCESS_QUEUE_URL."),
    ] = None,
    steps: options.Steps = None,
    concurrency: options.Concurrency = None,
    bucket: options.Bucket = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print a line of JSON for each recording.")
    ] = False,
    verbose: options.Verbose = 0,
) -> None:
    """Post-process recordings as the queue tells of them: S3's events, received from SQS.

    Any number of these may run at once, anywhere. The first SIGTERM or SIGINT ends it with what is
    in hand, for up to RECORDER_DRAIN_SECONDS; the second at once.
    """
    console = output.stderr()

    async def work(interrupts: runtime.Interrupts) -> int:
        settings = options.make_settings(
            bucket=bucket,
            postprocess_queue_url=queue_url,
            postprocess_steps=steps,
            postprocess_concurrency=concurrency,
        )
        await _work(settings, interrupts, as_json=as_json)
        return runtime.SUCCESS

    async def _work(settings: Settings, interrupts: runtime.Interrupts, *, as_json: bool) -> None:
        # The clients take a second to import: only who uses them waits for that.
        from recorder.postprocess.events import UnreadableEvent
        from recorder.postprocess.handle import Handled
        from recorder.postprocess.queue_worker import Worker
        from recorder.postprocess.run import Processor
        from recorder.postprocess.sqs import Message, open_queue

        url = settings.postprocess_queue_url
        if url is None:
            told = "RECORDER_POSTPROCESS_QUEUE_URL is not set: must be an SQS queue's URL"
            raise SettingsError([told])
        if settings.location.kind != "s3":
            told = (
                f"RECORDER_BUCKET={settings.bucket!r}: must be a bucket: a folder sends no events"
            )
            raise SettingsError([told])

        def tell(message: Message, handled: Handled | UnreadableEvent) -> None:
            if isinstance(handled, UnreadableEvent):
                return  # told by the log
            for one in handled.recordings:
                if as_json:
                    print(json.dumps(one.to_dict()), flush=True)
                elif one.steps:
                    did = ", ".join(f"{name} {state}" for name, state in one.steps.items())
                    line = f"{one.place.recording_id}  {one.verdict}  {did}"
                    output.stdout().print(output.clean(line), soft_wrap=True)

        async with open_queue(settings, url) as queue, Processor(settings) as processor:
            most = await queue.most_receives()
            output.print_note(console, f"working on {url}: {', '.join(settings.postprocess_steps)}")
            if most is None:
                output.print_note(
                    console,
                    "the queue has no redrive policy: what cannot be done comes again and again; "
                    "give it a dead-letter queue",
                )
            worker = Worker(queue, processor, drain_seconds=settings.drain_seconds, on_handled=tell)

            def stop() -> None:
                worker.stop()
                output.print_note(console, "ending, with what is in hand; again to break off")

            interrupts.stop = stop
            await worker.run()
            interrupts.received = None  # a signal is how this ends, and no failure
            counts = worker.counts
            told = ", ".join(f"{counts[name]} {name}" for name in counts) or "none came"
            output.print_note(console, f"ended; messages: {told}")

    runtime.run(work, console, verbose)
