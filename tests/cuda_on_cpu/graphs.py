"""CUDA graphs for the stand-in: operations on a stream that captures are recorded, and ``Graph.launch`` runs them.

As on a GPU, nothing is computed during a capture; data from the host, values for the host and waiting raise
RuntimeError. Arrays made in a capture must come from a pool of the graph's own; each launch overwrites them all, as
other graphs with this pool would. To make mistakes visible, they are filled with NaN then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np


class Graph:
    def __init__(self) -> None:
        self.operations: list[Callable[[], Any]] = []
        self.memory: list[np.ndarray] = []

    def upload(self, stream: Any = None) -> None: ...

    def launch(self, stream: Any = None) -> None:
        for array in self.memory:
            spoil(array)
        for operation in self.operations:
            operation()


class Stream:
    def __init__(self, null: bool = False, non_blocking: bool = False):
        self.null = null
        self.graph: Graph | None = None  # while it captures

    def __enter__(self) -> Stream:
        _streams.append(self)
        return self

    def __exit__(self, *exception: Any) -> None:
        _streams.pop()

    def begin_capture(self, mode: Any = None) -> None:
        if self.null:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        self.graph = Graph()

    def end_capture(self) -> Graph:
        assert self.graph
        graph, self.graph = self.graph, None
        return graph

    def synchronize(self) -> None:
        refuse("waiting")


class MemoryPool:
    def malloc(self, size: int) -> None:
        raise NotImplementedError("The stand-in's arrays are NumPy's.")

    def free_all_blocks(self) -> None: ...

    def total_bytes(self) -> int:
        return 0


DEFAULT_POOL = MemoryPool()
_streams = [Stream(null=True)]
_allocators: list[Callable[[int], Any]] = [DEFAULT_POOL.malloc]


@contextmanager
def using_allocator(allocator: Callable[[int], Any]) -> Iterator[None]:
    _allocators.append(allocator)
    try:
        yield
    finally:
        _allocators.pop()


def captured() -> Graph | None:
    """The graph that the current stream captures."""
    return _streams[-1].graph


def refuse(what: str) -> None:
    """Raise RuntimeError during a capture."""
    if captured():
        raise RuntimeError(f"the current stream is capturing, so {what} is disallowed")


def write(operation: Callable[[], Any]) -> None:
    """Run an operation that writes into an array, or record it."""
    graph = captured()
    if graph is None:
        operation()
    else:
        graph.operations.append(operation)


def new(compute: Callable[[], Any], inputs: Sequence[Any] = ()) -> Any:
    """The array that ``compute`` returns, or during a capture one that will hold it; views of inputs are not copied."""
    graph = captured()
    if graph is None:
        return compute()
    with np.errstate(all="ignore"):  # the inputs are not computed yet
        result = compute()
    if not isinstance(result, np.ndarray | np.generic):  # a shape
        return result
    result = np.asarray(result)
    if not any(np.may_share_memory(result, x) for x in inputs if isinstance(x, np.ndarray)):
        made(result)
        graph.operations.append(partial(_store, result, compute))
    return result


def _store(result: np.ndarray, compute: Callable[[], Any]) -> None:
    result[...] = compute()


def made(array: np.ndarray) -> np.ndarray:
    """Note, during a capture, that the graph's pool holds this array."""
    if graph := captured():
        assert _allocators[-1].__self__ is not DEFAULT_POOL, "others will get the memory that a graph works in"
        spoil(array)
        graph.memory.append(array)
    return array


def spoil(array: np.ndarray) -> None:
    array.fill(np.nan if array.dtype.kind == "f" else 0x5A)
