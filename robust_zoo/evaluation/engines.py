"""Where the tasks of a plan are measured: in this process, in several on this machine, or on a Ray cluster."""

import concurrent.futures
import contextlib
import logging
import multiprocessing
import os
import pathlib
import pickle
from collections.abc import Generator, Iterator, Sequence
from typing import Any, ClassVar

from robust_zoo import backend
from robust_zoo.evaluation.parts import Part
from robust_zoo.evaluation.plan import EvaluationPlan, Task
from robust_zoo.evaluation.tasks import measure
from robust_zoo.progress import progress_bar
from robust_zoo.sentences import one_line

ENGINES = ("process", "ray")


def measure_tasks(
    plan: EvaluationPlan,
    tasks: Sequence[Task],
    *,
    folder: str | pathlib.Path | None = None,
    progress: bool = True,
    engine: str = "process",
    workers: int | None = None,
    address: str | None = None,
) -> list[Part]:
    """The parts of some tasks of a bound plan.

    Args:
        plan: bound to its model and data.
        tasks: of the plan.
        folder: made if need be, that parts are written to; those that it has are not measured again. None keeps none.
        progress: whether to show a progress bar.
        engine: "process" or "ray".
        workers: how many processes measure at once. By default one, this one; on Ray as many as the cluster has GPUs
            or, without any, CPUs.
        address: of the Ray cluster, "auto" for the one around this machine; by default one is started here, which stays,
            with its workers, until the process ends.

    Raises:
        ValueError: an engine that there is not, or a cluster that cannot be reached.
        ImportError: Ray is not installed.
    """
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}.")
    if address is not None and engine != "ray":
        raise ValueError(f"address is of a Ray cluster: it needs engine='ray', got {address!r}.")
    whole = isinstance(workers, int) and not isinstance(workers, bool)
    if workers is not None and not (whole and workers >= 1):
        raise ValueError(f"workers must be an integer >= 1, got {workers!r}.")
    if folder is not None:
        folder = pathlib.Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
    found: dict[int, Part] = {}
    for task in tasks:
        if folder is not None and (place := Part.place(folder, task)).exists():
            found[task.number] = Part.load(place).of(plan, str(place))
            # A run that was killed right after it wrote the part left it.
            _state(folder, task).unlink(missing_ok=True)
    left = [task for task in tasks if task.number not in found]
    with progress_bar("Measuring", len(tasks), done=len(found), enabled=progress) as advance:
        if engine == "ray":
            measured = _on_ray(plan, left, workers, address)
        elif workers in (None, 1):
            measured = _here(plan, left, folder)
        else:
            measured = _in_processes(plan, left, workers, folder)
        with contextlib.closing(measured):
            for part in measured:
                if folder is not None:
                    task = plan.tasks[part.task]
                    part.save(Part.place(folder, task))
                    _state(folder, task).unlink(missing_ok=True)
                found[part.task] = part
                advance(1)
    return [found[task.number] for task in tasks]


def _state(folder: pathlib.Path, task: Task) -> pathlib.Path:
    """How far a task is that is not done."""
    return Part.place(folder, task).with_suffix(".state.npz")


def _here(
    plan: EvaluationPlan, tasks: Sequence[Task], folder: pathlib.Path | None
) -> Generator[Part]:
    for task in tasks:
        yield measure(plan, task, state_file=None if folder is None else _state(folder, task))


class Worker:
    """A process that measures tasks of one plan, and so compiles once.

    Args:
        content: what `packed` made of the plan.
    """

    of_this_process: ClassVar["Worker"]

    def __init__(self, content: bytes) -> None:
        text, bound = pickle.loads(content)
        plan = EvaluationPlan.from_json(text)
        plan.check_model(bound.model)
        self.plan = plan.with_bound(bound)

    def measure(self, number: int, state_file: str | None = None) -> Part:
        return measure(self.plan, self.plan.tasks[number], state_file=state_file)

    @classmethod
    def start(cls, content: bytes) -> None:
        """Makes the worker of this process."""
        cls.of_this_process = cls(content)

    @classmethod
    def measure_here(cls, number: int, state_file: str | None) -> Part:
        return cls.of_this_process.measure(number, state_file)


def packed(plan: EvaluationPlan) -> bytes:
    """A bound plan with its model, images and attacks, for other processes.

    Raises:
        ValueError: something of it cannot be sent to another process.
    """
    try:
        return pickle.dumps((plan.to_json(), plan.bound))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ValueError(
            f"the model and the attacks must be of classes that other processes can import, to be measured there: "
            f"{one_line(error)}."
        ) from error


def _in_processes(
    plan: EvaluationPlan, tasks: Sequence[Task], workers: int | None, folder: pathlib.Path | None
) -> Generator[Part]:
    """Each on one core; they start as new processes, since a backend does not survive a fork."""
    spawn = multiprocessing.get_context("spawn")
    with _environment(_one_thread()):
        pool = concurrent.futures.ProcessPoolExecutor(
            min(workers or 1, max(len(tasks), 1)), spawn, Worker.start, (packed(plan),)
        )
        try:
            waiting = {
                pool.submit(
                    Worker.measure_here,
                    task.number,
                    None if folder is None else str(_state(folder, task)),
                )
                for task in tasks
            }
            for done in concurrent.futures.as_completed(waiting):
                yield done.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list((getattr(pool, "_processes", None) or {}).values()):
                process.terminate()


def _one_thread() -> dict[str, str]:
    """What makes a backend that starts later compute on one core."""
    names = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
    flags = os.environ.get("XLA_FLAGS", "")
    return {
        **dict.fromkeys(names, "1"),
        "XLA_FLAGS": f"{flags} --xla_cpu_multi_thread_eigen=false".strip(),
        "KERAS_BACKEND": backend.name,
    }


@contextlib.contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


class RayWorker:
    """An actor that measures tasks of one plan after another, and keeps what it compiled for the last."""

    def __init__(self) -> None:
        self._plan = ""
        self._worker: Worker | None = None

    def measure(self, plan: str, content: list[Any], number: int) -> Part:
        """The part of a task.

        Args:
            plan: as JSON, by which it is told from others.
            content: one reference to what `packed` made of it, in a list so that it is fetched only where it is needed.
            number: of the task.
        """
        import ray

        if self._worker is None or plan != self._plan:
            self._worker, self._plan = Worker(ray.get(content[0])), plan
        return self._worker.measure(number)


_IDLE: dict[str, list[Any]] = {}
"""Workers of the Ray that this process started on its machine, by its node, for the next evaluation."""


def _on_ray(
    plan: EvaluationPlan, tasks: Sequence[Task], workers: int | None, address: str | None
) -> Generator[Part]:
    """By actors that are started again, and their task with them, where a machine fails.

    A Ray that is started here stays, as do its workers, until the process ends. Workers on a cluster are let go.
    """
    try:
        import ray
        from ray.util import ActorPool
    except ImportError:
        raise ImportError(
            "engine 'ray' needs Ray, which is not installed: pip install 'robust-zoo[ray]'."
        ) from None
    if address is not None and ray.is_initialized():
        node = ray.get_runtime_context().get_node_id()
        if _IDLE.pop(node, None) is not None:
            ray.shutdown()  # the one that an earlier evaluation started
    started = not ray.is_initialized()
    if started:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise ValueError(
                f"address must be of a Ray cluster that can be reached, got {address!r}: {one_line(error)}."
            ) from error
    node = ray.get_runtime_context().get_node_id()
    if started and address is None:
        _IDLE.clear()
        _IDLE[node] = []
    idle, done = _IDLE.get(node), False
    actors: list[Any] = []
    try:
        available = ray.cluster_resources()
        gpus = int(available.get("GPU", 0))
        count = min(workers or gpus or int(available.get("CPU", 1)), max(len(tasks), 1))
        environment = {"KERAS_BACKEND": backend.name} if gpus else _one_thread()
        kind = ray.remote(
            num_cpus=1,
            num_gpus=1 if gpus else 0,
            max_restarts=-1,
            max_task_retries=-1,
            runtime_env={"env_vars": environment},
        )(RayWorker)
        while idle and len(actors) < count:
            actors.append(idle.pop())
        actors += [kind.remote() for _ in range(count - len(actors))]
        content, text = [ray.put(packed(plan))], plan.to_json()
        numbers = [task.number for task in tasks]
        yield from ActorPool(actors).map_unordered(
            lambda actor, number: actor.measure.remote(text, content, number), numbers
        )
        done = True
    finally:
        if done and idle is not None:
            idle += actors
        else:
            for actor in actors:
                ray.kill(actor)
            if started:
                _IDLE.pop(node, None)
                ray.shutdown()
