"""Runs what Triton compiles for a GPU on CPU tensors: every launch of a JITFunction is compiled as it would
be for that GPU, and its PTX is executed by engine.c, with checks. No GPU and no interpreter are needed:
TRITON_INTERPRET must not be set.

    with Emulator(capability=90) as gpu:
        kernel[grid](tensors on the CPU ...)
    print(gpu.summary())
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from triton.runtime import driver
from triton.runtime.jit import JITFunction

from simota_triton.measure.compiling import Target

from . import engine, ptx
from .engine import APPROXIMATIONS, LANES, ORDERS

MAX_REPORTS = 4096
"""Kinds of findings of one launch."""

WIDEST_VIEW = 1 << 26
"""Elements from the first to the last of a view whose gaps are looked at."""


class Access(NamedTuple):
    """One side of a race: "write", "read" or "atomic", and from where."""

    how: str
    place: ptx.Place

    @property
    def function(self) -> str:
        """Whose line it is."""
        return self.place[0].function if self.place else "?"


@dataclass
class Finding:
    """Something that was reported, added up over launches.

    Attributes:
        kernel: In which.
        kind: What it is, see ``engine.KINDS``.
        place: From where.
        between: Of races: "programs", "warps" or "lanes".
        accesses: Of races: the earlier one and the later one.
        buffer: The tensor argument, if any.
        count: How often.
        same: How many of the later writes found the value that they wrote.
        example: Where and by whom, once.
    """

    kernel: str
    kind: str
    place: ptx.Place = ()
    between: str = ""
    accesses: tuple[Access, ...] = ()
    buffer: str = ""
    count: int = 0
    same: int = 0
    example: str = ""

    @property
    def key(self) -> tuple[Any, ...]:
        """What findings that are added up have in common."""
        return self.kernel, self.kind, self.place, self.between, self.accesses, self.buffer

    def __str__(self) -> str:
        def chain(place: ptx.Place) -> str:
            return " < ".join(map(str, place)) or "?"

        what = f"{self.kernel}: {self.kind}"
        if self.accesses:
            sides = " <-> ".join(f"{access.how} at {chain(access.place)}" for access in self.accesses)
            what += f" between {self.between}: {sides}"
        elif self.place:
            what += f" at {chain(self.place)}"
        same = f", {self.same} of which wrote what was there" if self.same else ""
        return (
            f"{what}{f' of {self.buffer}' if self.buffer else ''} ({self.count} times{same}; {self.example})"
        )


Findings = dict[tuple[Any, ...], Finding]


def add(findings: Findings, more: Finding) -> None:
    """Adds up."""
    found = findings.setdefault(more.key, more)
    if found is not more:
        found.count += more.count
        found.same += more.same


@dataclass(frozen=True)
class Settings:
    """How programs run; every choice is one that a GPU might make.

    Attributes:
        seed: Of every choice.
        inflight: Programs under way at once.
        quantum: Most instructions of a warp in a row; 1 interleaves each.
        order: In which programs start, see ``engine.ORDERS``.
        lanes: How lanes of a warp go on, see ``engine.LANES``.
        approximation: Results of approximate instructions, see ``engine.APPROXIMATIONS``.
        races: Whether to look for them.
        strict_lanes: Only bar.warp.sync and bar.sync order what lanes of a warp do; otherwise shuffles, votes
            and reductions do too.
        garbage: What memory holds that nobody has written: "random", "ones", "zeros".
        max_steps: Instructions after which programs are taken to wait for each other for ever.
    """

    seed: int = 0
    inflight: int = 16
    quantum: int = 1
    order: str = "random"
    lanes: str = "converge"
    approximation: str = "exact"
    races: bool = True
    strict_lanes: bool = False
    garbage: str = "random"
    max_steps: int = 400_000_000


class _Fresh(NamedTuple):
    """Memory that a launcher asked for: its address, and for each byte 0 where nobody has written."""

    address: int
    written: np.ndarray
    storage: Any


@dataclass
class Emulator:
    """See the module; inside ``with`` it stands in for the GPU.

    Attributes:
        capability: Compute capability, as 90.
        settings: How programs run.
        launchers: Modules, by the beginning of their name, whose ``torch.empty`` is memory that nobody has
            written.
        outputs: Parameters of kernels that have to be written to the last byte in the end.
        transform: What becomes of the PTX before it is executed.
        findings: All that was reported.
        counts: Launches, instructions ("steps", of all and of each kernel) and microseconds.
        coverage: Binary -> how often each of its instructions ran.
        programs: Binary -> what is executed.
    """

    capability: int = 90
    settings: Settings = field(default_factory=Settings)
    launchers: tuple[str, ...] = ("simota_triton.kernels",)
    outputs: tuple[str, ...] = (
        "gt_index_ptr", "matched_iou_ptr", "labels_ptr", "claims_ptr", "dynamic_k_ptr", "cost_ptr", "iou_ptr",
    )  # fmt: skip
    transform: Callable[[str], str] | None = None

    findings: Findings = field(default_factory=dict)
    counts: Counter[str] = field(default_factory=Counter)
    coverage: dict[str, np.ndarray] = field(default_factory=dict)
    programs: dict[str, ptx.Program] = field(default_factory=dict)
    _fresh: list[_Fresh] = field(default_factory=list)
    _last: dict[str, tuple[str, Tensor]] = field(default_factory=dict)

    def __enter__(self) -> Emulator:
        self._run, self._empty, self._empty_like = JITFunction.run, torch.empty, torch.empty_like
        driver.set_active(Target(self.capability))
        emulator = self

        def run(function: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
            kernel = emulator._run(function, *args, grid=grid, warmup=True, **kwargs)
            if not warmup:
                emulator._launch(function, kernel, grid, args, kwargs)
            return kernel

        JITFunction.run = run
        torch.empty = lambda *a, **k: emulator._new(emulator._empty(*a, **k))
        torch.empty_like = lambda *a, **k: emulator._new(emulator._empty_like(*a, **k))
        return self

    def __exit__(self, *_: Any) -> None:
        JITFunction.run, torch.empty, torch.empty_like = self._run, self._empty, self._empty_like
        for name, (kernel, tensor) in self._last.items():
            written = self._written(tensor.data_ptr())
            missing = 0 if written is None else int((written[: _extent(tensor)] == 0).sum())
            if missing:
                add(
                    self.findings,
                    Finding(kernel, "output not written", buffer=name, count=1, example=f"{missing} bytes"),
                )
        self._last.clear()
        self._fresh.clear()

    def _new(self, tensor: Tensor) -> Tensor:
        module = sys._getframe(2).f_globals.get("__name__", "")
        if module.startswith(self.launchers) and tensor.numel():
            storage = tensor.untyped_storage()
            raw = np.ctypeslib.as_array((ctypes.c_uint8 * storage.nbytes()).from_address(storage.data_ptr()))
            if self.settings.garbage == "random":
                self.counts["fresh"] += 1
                generator = np.random.default_rng(self.settings.seed * 1000 + self.counts["fresh"])
                raw[:] = generator.integers(0, 256, raw.size, dtype=np.uint8)
            else:
                raw[:] = {"ones": 255, "zeros": 0}[self.settings.garbage]
            self._fresh.append(_Fresh(storage.data_ptr(), np.zeros(storage.nbytes(), np.uint8), storage))
        return tensor

    def _written(self, address: int) -> np.ndarray | None:
        """What is known of memory from an address on; None: all of it was written."""
        for start, written, _ in self._fresh:
            if start <= address < start + len(written):
                return written[address - start :]
        return None

    def _launch(self, function: Any, kernel: Any, grid: Any, args: Any, kwargs: Any) -> None:
        start = time.perf_counter()
        key = kernel.hash
        if key not in self.programs:
            text = kernel.asm["ptx"]
            self.programs[key] = ptx.parse(text if self.transform is None else self.transform(text))
        program = self.programs[key]
        binder = function.device_caches[self.capability][4]
        options = {"debug": False, "instrumentation_mode": "", "fpsan_homomorphic_casts": False}
        bound, _, _ = binder(*args, **kwargs, **options)
        values = list(_flatten(kernel.src.signature, bound))
        tensors = [(name, value) for name, value in values if isinstance(value, Tensor)]
        regions, held, segments = self._regions([tensor for _, tensor in tensors])
        bases = iter(region.base for region in regions)
        arguments = [
            next(bases)
            if isinstance(value, Tensor)
            else ptx.float_bits(value)
            if isinstance(value, float)
            else int(value)
            for _, value in values
        ]
        # scratch memory of Triton's own, which these kernels do not have
        arguments += [0] * (len(program.types) - len(arguments))
        sizes, metadata, s, slots = (*grid, 1, 1)[:3], kernel.metadata, self.settings, program.slots
        self.counts["launches"] += 1
        values_at_start, known = program.initial(sizes, metadata.num_warps * 32)
        block = program.parameters(arguments)
        region_array = (engine.Region * max(1, len(regions)))(*regions)
        segment_sizes = (ctypes.c_int64 * max(1, len(segments)))(*segments)
        reports = (engine.Report * MAX_REPORTS)()
        hits = np.zeros(len(program.code), np.uint64)
        launch = engine.Launch(
            code=ctypes.addressof(program.array),
            num_ins=len(program.code),
            num_slots=len(slots),
            warps=metadata.num_warps,
            shared_bytes=metadata.shared,
            grid=sizes,
            init_values=values_at_start.ctypes.data,
            init_known=known.ctypes.data,
            wide=program.wide.ctypes.data,
            slot_tid=tuple(slots[f"%tid.{axis}"] for axis in "xyz"),
            slot_ctaid=tuple(slots[f"%ctaid.{axis}"] for axis in "xyz"),
            slot_laneid=slots["%laneid"],
            slot_warpid=slots["%warpid"],
            params=ctypes.cast(ctypes.c_char_p(block), ctypes.c_void_p),
            param_bytes=len(block),
            num_regions=len(regions),
            regions=ctypes.addressof(region_array),
            num_segments=len(segments),
            seg_sizes=ctypes.addressof(segment_sizes),
            seed=s.seed * 7919 + self.counts["launches"],
            inflight=s.inflight,
            quantum=s.quantum,
            lanes_mode=LANES.index(s.lanes),
            order=ORDERS.index(s.order),
            approx=APPROXIMATIONS.index(s.approximation),
            check_races=int(s.races),
            strict_lanes=int(s.strict_lanes),
            max_steps=s.max_steps,
            reports=ctypes.addressof(reports),
            max_reports=MAX_REPORTS,
            hits=hits.ctypes.data,
        )
        engine.library().execute(ctypes.byref(launch))
        del held
        self.coverage[key] = self.coverage.get(key, 0) + hits
        self.counts["steps"] += launch.steps
        self.counts[f"steps of {program.name}"] += launch.steps
        self.counts["microseconds"] += round(1e6 * (time.perf_counter() - start))
        for report in reports[: launch.num_reports]:
            add(self.findings, _finding(program, report, tensors, sizes))
        self._last |= {name: (program.name, value) for name, value in tensors if name in self.outputs}

    def _regions(self, tensors: list[Tensor]) -> tuple[list[engine.Region], list[Any], list[int]]:
        """An address range for each tensor with nothing around it, what has to be kept meanwhile, and the
        sizes of the pieces of memory behind them: arguments that overlap share one.
        """
        segments: list[list[int]] = []
        for low, high in sorted(
            (tensor.data_ptr() // 8 * 8, tensor.data_ptr() + _extent(tensor)) for tensor in tensors
        ):
            if segments and low < segments[-1][1]:
                segments[-1][1] = max(segments[-1][1], high)
            else:
                segments.append([low, high])
        regions, held = [], []
        for n, tensor in enumerate(tensors, 1):
            real, size = tensor.data_ptr(), _extent(tensor)
            region = engine.Region(base=(n << 40) + (1 << 39) + real % 4096, size=size, real=real)
            valid, written = _elements(tensor), self._written(real)
            if valid is not None:
                held.append(valid)
                region.valid = valid.ctypes.data
            if written is not None:
                region.init = written.ctypes.data
            region.segment = next((i for i, (low, high) in enumerate(segments) if low <= real < high), 0)
            region.seg_offset = real - segments[region.segment][0]
            regions.append(region)
        return regions, held, [high - low for low, high in segments]

    def lines(self) -> Counter[tuple[str, ptx.Line]]:
        """Kernel and line -> how often its instructions ran; 0 is an entry too."""
        ran: Counter[tuple[str, ptx.Line]] = Counter()
        for key, hits in self.coverage.items():
            program = self.programs[key]
            for place, times in zip(program.places, hits.tolist(), strict=True):
                if place:
                    ran[program.name, place[0]] += times
        return ran

    def summary(self) -> str:
        """Counts and findings."""
        return "\n".join(
            [f"sm_{self.capability}: {dict(self.counts)}", *sorted(map(str, self.findings.values()))]
        )


def _finding(
    program: ptx.Program, report: engine.Report, tensors: list[tuple[str, Tensor]], grid: Any
) -> Finding:
    kind, first, second = engine.KINDS[report.kind], report.pc_a, report.pc_b
    buffer, example = "", f"program {report.cta_a} thread {report.lane} of grid {grid}: {program.text[first]}"
    if 0 <= report.region < len(tensors):
        buffer, tensor = tensors[report.region]
        example = f"byte {report.offset} of {list(tensor.shape)}, {example}"
    if kind not in ("race", "shared race"):
        return Finding(
            program.name, kind, program.places[first], buffer=buffer, count=report.count, example=example
        )
    accesses = tuple(
        Access(how, program.places[pc])
        for how, pc in zip(engine.ACCESSES[report.what % 16], (first, second), strict=True)
    )
    return Finding(
        program.name,
        kind,
        between=engine.LEVELS[report.what // 16],
        accesses=accesses,
        buffer=buffer,
        count=report.count,
        same=report.same,
        example=f"{example} | program {report.cta_b}: {program.text[second]}",
    )


def _extent(tensor: Tensor) -> int:
    """Bytes from the first to behind the last element."""
    if tensor.numel() == 0:
        return 0
    elements = 1 + sum((n - 1) * stride for n, stride in zip(tensor.shape, tensor.stride(), strict=True))
    return elements * tensor.element_size()


def _elements(tensor: Tensor) -> np.ndarray | None:
    """1 for each byte between a tensor's first and last that belongs to an element; None: all do, or it is
    too wide to tell.
    """
    extent = _extent(tensor) // tensor.element_size()
    if tensor.is_contiguous() or extent > WIDEST_VIEW:
        return None
    used = torch.zeros(extent, dtype=torch.uint8)
    used.as_strided(tensor.shape, tensor.stride()).fill_(1)
    return None if bool(used.all()) else used.repeat_interleave(tensor.element_size()).numpy()


def _flatten(signature: dict[str, Any], bound: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Name and value of what a kernel takes when it runs."""

    def walk(name: str, kind: Any, value: Any) -> Iterator[tuple[str, Any]]:
        if isinstance(kind, (tuple, list)):
            for i, (part, one) in enumerate(zip(kind, value, strict=True)):
                yield from walk(f"{name}[{i}]", part, one)
        elif kind != "constexpr":
            yield name, value

    for name, kind in signature.items():
        yield from walk(name, kind, bound[name])
