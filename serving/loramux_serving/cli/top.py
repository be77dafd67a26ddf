"""`loramux top`: replicas and adapters, live."""

import dataclasses
import json
import time
from collections import deque
from typing import Annotated

import typer
from rich.console import RenderableType
from rich.live import Live
from rich.text import Text

from loramux_serving.cli.frame import Frame, between
from loramux_serving.cli.gateway import Fault, Gateway, printable
from loramux_serving.cli.sample import Sample, take
from loramux_serving.cli.session import Session
from loramux_serving.cli.terminal import keyboard
from loramux_serving.cli.top_view import render

_WINDOW_S = 10.0
"""Rates are over this much of the past, or over one interval where that is longer."""

_NOT_A_GATEWAY = "http_4"
"""Codes that begin so: something answers there that has no admin interface."""


def top(
    ctx: typer.Context,
    interval: Annotated[float, typer.Option(min=0.1, max=3600.0, help="Seconds between two looks.")] = 1.0,
    once: Annotated[bool, typer.Option("--once", help="Look twice, an interval apart, print that and end.")] = False,
) -> None:
    """Replicas with their slots, and adapters by use with their tiers, until `q` is pressed."""
    session: Session = ctx.obj
    watch = Watch(session.gateway)
    if once:
        watch.look_or_fail()
        time.sleep(interval)
        watch.look_or_fail()
        session.show(_as_json(watch.frame()), _picture(watch, session.out.width, None))
        return
    try:
        _follow(session, watch, interval)
    except KeyboardInterrupt:
        return


def _follow(session: Session, watch: "Watch", interval_s: float) -> None:
    if session.as_json or not session.out.is_terminal:
        while True:
            watch.look()
            _print(session, watch)
            time.sleep(interval_s)
    with keyboard() as keys, Live(console=session.out, screen=True, auto_refresh=False) as live:
        while True:
            watch.look()
            live.update(_picture(watch, session.out.width, session.out.height), refresh=True)
            if keys.quits_within(interval_s):
                return


def _print(session: Session, watch: "Watch") -> None:
    """One frame after the other, where there is no terminal to draw on."""
    if not session.as_json:
        session.out.print(_picture(watch, session.out.width, None))
        session.out.print()
    elif watch.fault is None:
        session.out.file.write(json.dumps(_as_json(watch.frame()), ensure_ascii=False) + "\n")
    session.out.file.flush()


class Watch:
    """Samples of the last seconds, and how long the gateway has not answered."""

    def __init__(self, gateway: Gateway) -> None:
        self.gateway = gateway
        self.fault: Fault | None = None
        self._samples: deque[Sample] = deque()
        self._answered_s = time.monotonic()

    def look(self) -> None:
        """A gateway that does not answer now may do so later. Raises `Fault` where it will not: for the key."""
        try:
            self.look_or_fail()
        except Fault as fault:
            if fault.code in ("unauthenticated", "forbidden") or fault.code.startswith(_NOT_A_GATEWAY):
                raise
            self.fault = fault

    def look_or_fail(self) -> None:
        """Raises `Fault`."""
        sample = take(self.gateway, time.monotonic())
        self._answered_s = time.monotonic()
        if self.fault is not None:
            self._samples.clear()  # the time in which it was away is nobody's rate
            self.fault = None
        self._samples.append(sample)
        while len(self._samples) > 2 and sample.at_s - self._samples[1].at_s >= _WINDOW_S:
            self._samples.popleft()

    def frame(self) -> Frame:
        """What was seen last, without rates while the gateway does not answer; nothing where it never did."""
        if not self._samples:
            return Frame(None, (), (), {}, ())
        rates = self.fault is None and len(self._samples) > 1
        return between(self._samples[0] if rates else None, self._samples[-1])

    @property
    def silent_s(self) -> float:
        return time.monotonic() - self._answered_s


def _picture(watch: Watch, width: int, height: int | None) -> RenderableType:
    frame = watch.frame()
    if watch.fault is not None:
        told = Text(printable(f"not reachable for {watch.silent_s:.0f} s: {watch.fault}"), style="bold red")
        return render(frame, told, time.time(), width, height) if frame.replicas else told
    span = f"over {frame.span_s:.0f} s" if frame.span_s else "first look"
    title = f"{watch.gateway.url}  {time.strftime('%H:%M:%S')}  {len(frame.adapters)} adapters  {span}"
    return render(frame, Text(printable(title), style="bold"), time.time(), width, height)


def _as_json(frame: Frame) -> dict[str, object]:
    return dataclasses.asdict(frame)
