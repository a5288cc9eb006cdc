"""Training steps as CUDA graphs: one launch a step instead of hundreds.

A launch takes the CPU longer than most kernels take the GPU. A CUDA graph is a record of launches with their arguments,
so the arrays of a step stay where they are, and what changes from step to step lies in memory: the batch, and the
settings of the optimizers (``ops.cuda.settings``).
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from contextlib import suppress
from functools import partial
from typing import Any, Self

import numpy as np

from tinysrgan.core.cli import say
from tinysrgan.core.device import Array, array_module, reason
from tinysrgan.ops.cuda.settings import Settings, captured
from tinysrgan.training.srgan import SRGAN

Step = Callable[[SRGAN, Array, Array], dict[str, Array]]


class StepGraphs:
    """Takes training steps: on a GPU as CUDA graphs; on the CPU, and in several processes, as they are.

    A context manager, since graphs hold memory.

    A kind of step is a function, the shapes of its batch, and whether it logs D(real). The first step of a kind runs
    as it is: it compiles kernels and makes the arrays that outlive a step. The second one is captured and from then on
    launched. If that fails, for example for lack of memory, a sentence says so, and all steps run as they are.
    """

    def __init__(self, srgan: SRGAN):
        self.srgan = srgan
        self.wanted = not srgan.options.no_cuda_graph and srgan.parallel.ranks.size == 1
        self.step: Step | None = None  # whose graphs these are; those of pre-training make room for the others
        self.graphs: dict[Hashable, StepGraph | None] = {}  # by kind; None after its first step
        # The pool holds the arrays that graphs make: all in the same memory, since one graph runs at a time and reads
        # only what it has written. A pool keeps its free memory by stream, hence one stream. It captures, which the
        # default one can't, and runs nothing.
        self.pool: Any = None
        self.stream: Any = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: Any) -> None:
        self._drop()

    def __call__(self, step: Step, lr: Array, hr: Array) -> dict[str, Array]:
        """``step(srgan, lr, hr)``."""
        if not self.wanted or (cupy := array_module(lr)) is np:
            return step(self.srgan, lr, hr)
        if step is not self.step:
            self._drop()
            self.step, self.pool, self.stream = step, cupy.cuda.MemoryPool(), cupy.cuda.Stream(non_blocking=True)
        kind = lr.shape, hr.shape, self.srgan.logs_probabilities
        if kind in self.graphs and (graph := self.graphs[kind] or self._capture(lr, hr)):
            self.graphs[kind] = graph
            return graph.launch(lr, hr)
        self.graphs.setdefault(kind)
        return step(self.srgan, lr, hr)

    def _capture(self, lr: Array, hr: Array) -> StepGraph | None:
        assert self.step
        try:
            return StepGraph(partial(self.step, self.srgan), lr, hr, self.stream, self.pool)
        except (MemoryError, RuntimeError) as error:  # those of CuPy are subclasses
            say(f"training goes on without a CUDA graph, more slowly: {reason(error)}.")
        self.wanted = False
        self._drop()
        return None

    def _drop(self) -> None:
        self.graphs.clear()
        if self.pool:
            self.pool.free_all_blocks()  # CuPy doesn't when it deletes a pool


class StepGraph:
    """A training step as CUDA captured it, with the arrays that it reads and writes."""

    def __init__(self, step: Callable[[Array, Array], dict[str, Array]], lr: Array, hr: Array, stream: Any, pool: Any):
        cupy = array_module(lr)
        self.lr, self.hr, self.settings = copied(lr), copied(hr), Settings(cupy)
        cupy.get_default_memory_pool().free_all_blocks()  # the memory of the first step; the graph needs as much
        with stream, cupy.cuda.using_allocator(pool.malloc), captured(self.settings):
            stream.begin_capture()
            try:
                self.losses = step(self.lr, self.hr)
            except Exception:
                with suppress(RuntimeError):  # the capture is invalid, and the error above says why
                    stream.end_capture()
                raise
            self.graph = stream.end_capture()
        self.graph.upload()  # now, when a lack of memory does no harm

    def launch(self, lr: Array, hr: Array) -> dict[str, Array]:
        """Take a step on this batch, on the current stream. The results are new arrays."""
        np.copyto(self.lr, lr)
        np.copyto(self.hr, hr)
        self.settings.refresh()
        self.graph.launch()
        return {name: copied(loss) for name, loss in self.losses.items()}


def copied(x: Array) -> Array:
    """A copy of a contiguous array. ``x.copy()`` would launch a kernel."""
    copy = np.empty_like(x)
    np.copyto(copy, x)
    return copy
