"""Detection in every map of a cohort, in parallel: processes on one machine, or a Dask cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from lesionkit.detection.config import FitConfig
from lesionkit.detection.records import Detections

if TYPE_CHECKING:
    from jaxtyping import Num

    Loader = Callable[[], Num[np.ndarray, "..."]]


_DEATHS = 3
"""Times that workers may die before cases are tried one by one."""


@dataclass(frozen=True, kw_only=True)
class FailedCase:
    """A map of a cohort whose detection raised an error."""

    number: int
    """Its place in the input."""
    error: str
    """Type and message of the error."""
    traceback: str = field(repr=False)
    """Where it was raised."""


def detect_many(
    heatmaps: Iterable[Num[np.ndarray, "..."] | Loader],
    config: FitConfig | None = None,
    *,
    n_jobs: int = -1,
    scheduler: Any = None,
    progress: bool = True,
) -> list[Detections | FailedCase]:
    """Detect in every map of a cohort, in parallel.

    Parameters
    ----------
    heatmaps : iterable of arrays, or of functions that load one
        A function is called where the work is done, so that no map is sent; it must be importable or picklable.
    config : FitConfig, optional
        Settings; the defaults if None.
    n_jobs : int
        Processes on this machine (joblib's meaning: -1 is one per core, 1 stays in this process).
    scheduler : str or distributed.Client, optional
        Address of a Dask scheduler: the work is done there and `n_jobs` has no meaning.
    progress : bool
        Show a progress bar.

    Returns
    -------
    list of Detections or FailedCase
        In the order of the input. A map that cannot be done is reported here and in the log ``lesionkit.detection``;
        the others go on.
    """
    import logging  # and joblib, rich, distributed below: detecting in one map needs none of them

    config = config or FitConfig()
    sources = list(heatmaps)
    if scheduler is not None:
        finished = _on_dask(sources, config, scheduler)
    elif n_jobs == 1 or not sources:
        finished = (_detect_case(i, source, config) for i, source in enumerate(sources))
    else:
        finished = _on_processes(sources, config, n_jobs)
    results: list[Detections | FailedCase | None] = [None] * len(sources)
    for i, result in _with_progress(finished, len(sources), progress):
        if isinstance(result, FailedCase):
            logging.getLogger("lesionkit.detection").warning("map %d failed: %s", i, result.error)
            results[i] = result
        else:
            results[i] = replace(result, heatmap=sources[i])
    return [result for result in results if result is not None]


def _detect_case(number: int, source: Any, config: FitConfig) -> tuple[int, Detections | FailedCase]:
    from lesionkit.detection.search import detect  # which offers detect_many to its users

    try:
        result = detect(source() if callable(source) else source, config)
    except Exception as error:  # one bad case must not end a cohort; it is returned as a result
        import traceback

        text = f"{type(error).__name__}: {error}"
        return number, FailedCase(number=number, error=text, traceback=traceback.format_exc())
    return number, replace(result, heatmap=np.zeros((0,) * result.mu.shape[1]))  # the map is not sent back


def _on_processes(sources: list[Any], config: FitConfig, n_jobs: int) -> Iterator[tuple[int, Detections | FailedCase]]:
    """Work in processes, with new ones where some died (killed for their memory, say); results as they come."""
    from concurrent.futures.process import BrokenProcessPool

    from joblib import Parallel, cpu_count, delayed

    left = dict(enumerate(sources))
    deaths = 0
    while left:
        work = [delayed(_detect_case)(i, source, config) for i, source in left.items()]
        try:
            for i, result in Parallel(n_jobs=n_jobs, return_as="generator_unordered")(work):
                del left[i]
                yield i, result
        except BrokenProcessPool:
            deaths += 1
        if left and deaths > _DEATHS:  # perhaps one of the cases kills them: the next ones each in a pool of its own
            deaths = 0
            for i in list(left)[: 4 * cpu_count()]:
                source = left.pop(i)
                try:
                    yield Parallel(n_jobs=2)([delayed(_detect_case)(i, source, config)])[0]
                except BrokenProcessPool as error:
                    text = f"its worker died ({type(error).__name__}); it may need more memory than there is"
                    yield i, FailedCase(number=i, error=text, traceback="")


def load_distributed() -> Any:
    """Return Dask's package `distributed`, which an installation may lack; then a `ValueError` says what to install."""
    try:
        import distributed
    except ImportError as error:
        raise ValueError(f"a scheduler wants Dask ({error}): pip install 'lesionkit[cluster]'") from error
    return distributed


def _on_dask(sources: list[Any], config: FitConfig, scheduler: Any) -> Iterator[tuple[int, Detections | FailedCase]]:
    distributed = load_distributed()
    client: Any = distributed.Client(scheduler) if isinstance(scheduler, str) else scheduler
    try:
        futures = [client.submit(_detect_case, i, source, config, pure=False) for i, source in enumerate(sources)]
        place = {future.key: i for i, future in enumerate(futures)}
        for future in distributed.as_completed(futures):
            if future.status == "finished":
                yield future.result()
            else:  # the worker died
                text = f"{type(future.exception()).__name__}: {future.exception()}"
                yield place[future.key], FailedCase(number=place[future.key], error=text, traceback="")
    finally:
        if isinstance(scheduler, str):
            client.close()


def _with_progress(results: Iterable[Any], total: int, progress: bool) -> Iterable[Any]:
    if not progress:
        return results
    from rich.progress import track

    return track(results, total=total, description="Detecting")
