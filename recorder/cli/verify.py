"""`recorder verify`: proves recordings against their manifests, by reading them back."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from recorder import verification
from recorder.catalog import NoSuchRecording
from recorder.cli import options, output, runtime
from recorder.cli.progress import Display
from recorder.names import check_recording_id
from recorder.verification import Proof, Report, Step

_SHOWN_GAPS = 20


def verify(
    recording_ids: Annotated[
        list[str], typer.Argument(metavar="ID...", help="The recordings' ids.")
    ],
    bucket: options.Bucket = None,
    day: options.Day = None,
    as_json: options.AsJson = False,
    verbose: options.Verbose = 0,
) -> None:
    """Prove recordings: read every object back and compare it with the manifest."""
    console = output.stderr()

    async def work(_: runtime.Interrupts) -> int:
        names = [check_recording_id(name) for name in recording_ids]
        chosen = options.parse_day(day)
        documents: list[dict[str, Any]] = []
        good = True
        async with options.open_store(bucket) as store:
            for index, name in enumerate(dict.fromkeys(names)):
                try:
                    with Display.shown(console) as display:
                        display.begin(f"verifying {name}")
                        report = await verification.verify(
                            store, name, day=chosen, progress=partial(_show, display)
                        )
                except (NoSuchRecording, verification.UnreadableManifest) as error:
                    good = False
                    output.print_error(console, str(error))
                    documents.append({"recording_id": name, "ok": False, "error": str(error)})
                    continue
                good = good and report.ok
                documents.append(report.to_dict())
                if not as_json:
                    _print(output.stdout(), report, first=index == 0)
        if as_json:
            output.print_json(documents)
        return runtime.SUCCESS if good else runtime.FAILURE

    runtime.run(work, console, verbose)


def _show(display: Display, step: Step) -> None:
    """Show how much is read."""
    read = f"{output.size(step.bytes_read)} of {output.size(step.bytes_total)} read"
    display.show(read, done=step.bytes_read, total=step.bytes_total)


def _print(console: Console, report: Report, *, first: bool) -> None:
    if not first:
        console.print()
    _print_head(console, report)
    _print_proofs(console, report)
    _print_gaps(console, report)
    for note in report.notes:
        output.print_note(console, f"note: {_short(note, report)}")
    console.print()
    counts = report.counts
    looked = (
        f"{output.many(counts.objects, 'object')} read, {output.size(counts.bytes)}; "
        f"{output.many(counts.checks, 'comparison')}"
    )
    if report.ok:
        verdict = Text.assemble(("proved: ", "green"), f"nothing differs ({looked})")
        console.print(verdict, soft_wrap=True)
        return
    many = output.many(len(report.findings), "finding")
    console.print(Text.assemble(("not proved: ", "red"), f"{many} ({looked})"), soft_wrap=True)
    for finding in report.findings:
        line = output.clean(_short(str(finding), report))
        console.print(Text(f"  {line}"), soft_wrap=True)


def _print_head(console: Console, report: Report) -> None:
    head = output.table("", "")
    head.show_header = False
    samples, rate = report.samples, report.sample_rate
    length = f"{output.seconds(report.duration_seconds)} ({samples:,} samples at {rate} Hz)"
    rows: list[tuple[str, object]] = [
        ("recording", report.recording_id),
        ("state", output.state_text(report.state)),
        ("at", report.url),
        ("also on", ", ".join(report.other_days)),
        ("length", length),
        ("late audio", ", ".join(_short(folder, report) for folder in report.continuations)),
    ]
    for name, value in rows:
        if value:
            output.add_row(head, (name, value))
    console.print(head)


def _print_proofs(console: Console, report: Report) -> None:
    if not report.proofs:
        return
    table = output.table("proved", "size>", "length>", "crc64nvme", "compared with")
    for proof in report.proofs:
        if proof.kind == "output":
            name = _short(proof.key, report)
            _add_row(table, name, [proof], proof.checksum)
    for kind, what in (("turn", "turn clip"), ("chunk", "chunk")):
        proofs = [proof for proof in report.proofs if proof.kind == kind]
        if proofs:
            _add_row(table, output.many(len(proofs), what), proofs, "")
    for proof in report.proofs:
        if proof.kind in ("peaks", "export"):
            _add_row(table, _short(proof.key, report), [proof], proof.checksum)
    console.print()
    console.print(table)


def _add_row(table: Any, name: str, proofs: list[Proof], checksum: str) -> None:
    length = sum(proof.samples / max(1, proof.sample_rate) for proof in proofs)
    same = ["manifest"] if all(proof.compared for proof in proofs) else ["header"]
    if all(proof.rendered for proof in proofs):
        same.append("audio" if proofs[0].kind == "peaks" else "chunks")
    size = output.size(sum(proof.bytes for proof in proofs))
    output.add_row(table, (name, size, output.seconds(length), checksum, ", ".join(same)))


def _print_gaps(console: Console, report: Report) -> None:
    console.print()
    if not report.gaps:
        console.print("no gaps: the manifest tells of no missing audio")
        return
    rate = max(1, report.sample_rate)
    table = output.table("missing audio of", "from>", "to>", "reason")
    for gap in report.gaps[:_SHOWN_GAPS]:
        end = "not known" if gap.end is None else output.seconds(gap.end / rate)
        output.add_row(table, (gap.track, output.seconds(gap.start / rate), end, gap.reason))
    console.print(table)
    if len(report.gaps) > _SHOWN_GAPS:
        console.print(f"and {len(report.gaps) - _SHOWN_GAPS} more gaps; --json lists all")


def _short(text: str, report: Report) -> str:
    """Return text with keys as they are within the recording's folder."""
    return text.replace(report.folder, "")
