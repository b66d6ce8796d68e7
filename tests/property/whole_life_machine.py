"""Random lives of recordings: calls, their faults and deaths, and who finishes them."""

from __future__ import annotations

import asyncio
from typing import Any

from faulty_store import refusal, reset
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule
from whole_life_draws import (
    OPS,
    REFUSABLE,
    WRITES,
    Death,
    deaths,
    names,
    outputs,
    speakers,
    told,
    when,
)
from whole_life_model import SOURCES, Model
from whole_life_verdict import check_result, check_whole, durable_samples
from whole_life_world import Call, Host, Process, World

from recorder import Track
from recorder.recovered import Outcome, Recovered
from recorder.session import Session
from uploader.errors import AccessDenied, BotRecorderError

STALE_SECONDS = 16.0
ROUNDS = 8
MAX_CALLS = 2


class WholeLife(RuleBasedStateMachine):
    """Calls, their faults and deaths, and who finishes them."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World | None = None
        self.broken = False
        self.died = False

    # -- the call ------------------------------------------------------------------------------

    @initialize(rate=st.sampled_from([4000, 4000, 4000, 192_000]), outputs=outputs, tracks=speakers)
    def begin(self, rate: int, outputs: list[str], tracks: list[str]) -> None:
        chunk_seconds = 1.0 if rate < 100_000 else 3.0
        self.rate, self.tracks = rate, tracks
        options = {"sample_rate": rate, "chunk_seconds": chunk_seconds, "outputs": outputs}
        self.world = World(options)
        self.main = self.world.new_host()
        self.start(death=None)

    @property
    def w(self) -> World:
        assert self.world is not None
        return self.world

    def do(self, work: Any) -> Any:
        try:
            return self.w.run(work)
        except BaseException:
            self.broken = True
            raise

    def live(self) -> tuple[Call, Session]:
        [call] = [call for call in self.w.calls if call.session is not None]
        assert call.session is not None
        return call, call.session

    def speaking(self) -> bool:
        return any(call.session is not None and call.model.length is None for call in self.w.calls)

    def process(self) -> Process | None:
        return self.main.process

    def up(self) -> bool:
        return self.main.process is None or not self.main.process.store.down

    def can_start(self) -> bool:
        idle = all(call.session is None for call in self.w.calls)
        return idle and len(self.w.calls) < MAX_CALLS and self.up()

    @rule(death=deaths)
    @when(can_start)
    def start(self, death: Death | None) -> None:
        self.do(self._start(death))

    async def _start(self, death: Death | None) -> None:
        world, name = self.w, f"call-{len(self.w.calls) + 1}"
        process = await world.boot(self.main)
        call = Call(name, Model(self.rate, list(self.tracks)), self.main)
        call.model.puts_refused = "put" in process.refused
        world.calls.append(call)
        if death is not None:
            process.doom(*death[:1], after=death[1])
        tracks = [Track(track, SOURCES[track]) for track in self.tracks]  # type: ignore[arg-type]

        async def begin() -> Session:
            return await process.recorder.start(name, tracks=tracks)

        try:
            session = await process.survive(begin())
        except BotRecorderError:
            assert process.refused
            session = None
            call.model.cut_off()
        if session is not None:
            call.session, call.zero, call.model.began = session, session.zero, True

    def tick(self, steps: int) -> None:
        """Let time pass."""
        call, _ = self.live()
        call.model.now += steps * call.model.step
        self.w.clock.advance_to(call.zero + call.model.now / call.model.rate)

    @rule(who=names, steps=st.integers(1, 40))
    @when(speaking)
    def speak(self, who: set[str], steps: int) -> None:
        call, session = self.live()
        if "bot" not in self.tracks:
            who = who - {"bot"}
        for _ in range(steps):
            self.tick(1)
            for track in sorted(who):
                frame = call.model.next_frame(track)
                session.write(track, frame.tobytes(), self.rate)
                call.model.accept(track, frame)

    @rule(steps=st.integers(2, 30))
    @when(speaking)
    def be_silent(self, steps: int) -> None:
        self.tick(steps)

    @rule(steps=st.integers(2, 20))
    @when(speaking)
    def burst(self, steps: int) -> None:
        call, session = self.live()
        if "bot" not in self.tracks:
            return
        self.tick(1)
        for _ in range(steps):
            frame = call.model.next_frame("bot")
            session.write("bot", frame.tobytes(), self.rate)
            call.model.accept("bot", frame, burst=True)

    @rule(what=st.sampled_from(["interrupt", "pause", "start_turn", "end_turn"]), who=names)
    @when(speaking)
    def mark(self, what: str, who: set[str]) -> None:
        call, session = self.live()
        track = sorted(who & set(self.tracks) or self.tracks[:1])[0]
        if what == "interrupt":
            session.interrupt(track)
            call.model.interrupt(track)
        elif what == "pause" and call.model.paused:
            session.resume()
            call.model.resume()
        elif what == "pause":
            session.pause()
            call.model.pause()
        elif what == "start_turn":
            session.start_turn(track)
            call.model.start_turn(track)
        else:
            session.end_turn(track)
            call.model.end_turn(track)

    def can_flush(self) -> bool:
        return self.speaking() and self.up()

    @rule(death=deaths)
    @when(can_flush)
    def flush(self, death: Death | None) -> None:
        _, session = self.live()
        process = self._doomed(death)
        self.do(process.survive(session.flush()))

    @rule(death=deaths, discard=st.booleans(), wait=st.booleans())
    @when(speaking)
    def stop(self, death: Death | None, discard: bool, wait: bool) -> None:
        call, session = self.live()
        process = self._doomed(death)
        call.model.stop(discard_unheard=discard)
        seconds = 60.0 if wait and self.up() else 0.0
        result = self.do(
            process.survive(session.stop(discard_unheard=discard, wait_seconds=seconds))
        )
        self.died = result is None
        if result is not None:
            if seconds and not process.refused and not call.model.rescued:
                assert result.durable, result
            self.check(call, result)

    def _doomed(self, death: Death | None) -> Process:
        process = self.process()
        assert process is not None
        if death is not None:
            process.doom(death[0], after=death[1])
        return process

    # -- the store -----------------------------------------------------------------------------

    def running(self) -> bool:
        return self.main.process is not None

    @rule(
        kind=st.sampled_from(["fail", "lose", "delay", "repeat"]),
        op=st.sampled_from(WRITES + OPS),
        times=st.integers(1, 3),
    )
    @when(running)
    def hurt(self, kind: str, op: str, times: int) -> None:
        self._hurt(self.process(), kind, op, times)

    def _hurt(self, process: Process | None, kind: str, op: str, times: int) -> None:
        assert process is not None
        if kind == "fail":
            process.store.fail(op, reset(op), times)
        elif kind == "lose":
            process.store.lose_answer(op, times=times)
        elif kind == "delay" and op in WRITES:
            process.store.delay(op, times)
        elif kind == "repeat" and op in WRITES:
            process.store.repeat(op, times)

    @rule(op=st.sampled_from(REFUSABLE))
    @when(running)
    def refuse(self, op: str) -> None:
        process = self.process()
        assert process is not None
        if op in process.refused:
            process.store.refuse(op, None)
            process.refused.discard(op)
        else:
            process.store.refuse(op, refusal(AccessDenied, op))
            process.refused.add(op)
            for call in self.w.calls:
                call.model.puts_refused = call.model.puts_refused or op == "put"

    @rule()
    @when(running)
    def switch(self) -> None:
        process = self.process()
        assert process is not None
        process.store.down = not process.store.down

    @rule()
    def arrive_late(self) -> None:
        self.do(self.w.deliver_late())

    @rule()
    def expire_uploads(self) -> None:
        async def abort() -> None:
            store = self.w.stores[0].inner
            for upload in [one async for one in store.list_uploads()]:
                await store.abort_multipart(upload.key, upload.upload_id)

        self.do(abort())

    # -- death and recovery --------------------------------------------------------------------

    @rule()
    @when(running)
    def crash(self) -> None:
        process = self.process()
        assert process is not None
        self.do(process.kill())

    @rule(wait=st.booleans())
    @when(running)
    def close(self, wait: bool) -> None:
        process = self.process()
        assert process is not None
        for call in self.w.calls:
            if call.session is not None:
                call.model.stop()
        self.do(process.close(60.0 if wait and self.up() and not process.refused else 0.0))

    @rule()
    def lose_host(self) -> None:
        process = self.process()
        if process is not None:
            self.do(process.kill())
        self.do(self.w.deliver_late())
        left = {name.removeprefix(".") for name in self.main.recordings()}
        for call in self.w.calls:
            if call.host is self.main and call.recording_id in left:
                call.model.rescued = True
                floor = durable_samples(self.w.bucket, call.recording_id)
                before = call.model.floor
                call.model.floor = floor if before is None else min(floor, before)
            call.session = None
        spool = self.main.spool
        if spool.exists():
            spool.rename(self.w.folder / f"lost-{len(self.w.hosts)}")
        self.main = self.w.new_host()
        for call in self.w.calls:
            call.host = self.main

    @rule(death=deaths)
    @when(up)
    def recover(self, death: Death | None) -> None:
        self.do(self._recover([(self.main, False, death)]))

    @rule(death=deaths, kind=st.sampled_from(["fail", "lose", "delay"]), op=st.sampled_from(OPS))
    def take_over(self, death: Death | None, kind: str, op: str) -> None:
        host = self.w.new_host()
        self.do(self._recover([(host, True, death)], (kind, op)))

    @rule(first=deaths, second=deaths)
    def race(self, first: Death | None, second: Death | None) -> None:
        hosts = [(self.w.new_host(), True, one) for one in (first, second)]
        self.do(self._recover(hosts))

    @rule(first=deaths, second=deaths)
    @when(up)
    def race_with_spool(self, first: Death | None, second: Death | None) -> None:
        self.do(self._recover([(self.main, False, first), (self.w.new_host(), True, second)]))

    async def _recover(
        self,
        who: list[tuple[Host, bool, Death | None]],
        fault: tuple[str, str] | None = None,
    ) -> None:
        processes = []
        for host, bucket, death in who:
            process = await self.w.boot(host)
            if death is not None:
                process.doom(death[0], after=death[1])
            if fault is not None:
                self._hurt(process, *fault, 1)
            processes.append((process, bucket))
        if any(bucket for _, bucket in processes):
            for call in self.w.calls:
                call.model.rescued = True
        found = await asyncio.gather(
            *(
                process.survive(
                    process.recorder.recover(bucket=bucket, stale_after=0 if bucket else None)
                )
                for process, bucket in processes
            )
        )
        self.died = any(process.died.is_set() for process, _ in processes)
        for process, bucket in processes:
            if bucket and not process.died.is_set():
                await process.close(0)
        for one in [one for some in found for one in some or ()]:
            self._check_recovered(one)

    def _check_recovered(self, recovered: Recovered) -> None:
        [call] = [one for one in self.w.calls if one.recording_id == recovered.recording_id]
        if recovered.result is not None:
            self.check(call, recovered.result)
        if recovered.outcome is Outcome.RECOVERED:
            assert recovered.result is not None
            assert recovered.result.durable
        self.w.history.append(
            f"{recovered.recording_id} {recovered.source} {recovered.outcome} "
            f"{recovered.result and recovered.result.samples} {recovered.reason}"
        )
        told(f"{recovered.source}: {recovered.outcome}")

    # -- what must hold ------------------------------------------------------------------------

    def check(self, call: Call, result: Any) -> None:
        try:
            check_result(self.w.bucket, call.model, result)
        except BaseException:
            self.broken = True
            raise

    @invariant()
    def what_is_finished_stays_as_it_is(self) -> None:
        if self.world is not None:
            try:
                self.world.witness.look()
            except BaseException:
                self.broken = True
                raise

    def teardown(self) -> None:
        if self.world is None:
            return
        try:
            if not self.broken:
                self.world.run(self._settle())
                self.world.witness.look()
                for call in self.world.calls:
                    told(check_whole(self.world.bucket, call.recording_id, call.model))
                assert self.main.recordings() == []
                assert self.world.uploads() == []
        except AssertionError as error:
            error.add_note("\n".join(self.world.history))
            raise
        finally:
            self.world.run(self._end_all())
            self.world.close()

    async def _settle(self) -> None:
        """Let everybody finish what can be finished, without faults."""
        world = self.w
        for host in world.hosts:
            if host.process is not None:
                for call in world.calls:
                    if call.session is not None:
                        call.model.stop()
                host.process.store.down = False
                await host.process.close(0)
        await world.deliver_late()
        for _ in range(ROUNDS):
            found = []
            for host in [self.main, world.new_host()]:
                process = await world.boot(host)
                recorder = process.recorder
                found += await recorder.recover()
                world.clock.advance(STALE_SECONDS)
                found += await recorder.recover(bucket=host is not self.main, stale_after=0)
                await process.close(60)
            for one in found:
                self._check_recovered(one)
            if not found:
                return
        raise AssertionError(f"recovery does not come to an end: {found}")

    async def _end_all(self) -> None:
        for host in self.w.hosts:
            if host.process is not None:
                await host.process.kill()
