"""Commands about the pool and its workers."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from poolmgr.config.groups import REST
from poolmgr.core import views
from poolmgr.core.breakers import breaker_infos
from poolmgr.errors import BadOption
from poolmgr.manager.clock import now
from poolmgr.manager.handlers import unknown_task
from poolmgr.manager.maintenance import collect_garbage
from poolmgr.model import RESERVED, as_map
from poolmgr.server.call import Call


def status(call: Call) -> dict[str, Any]:
    """Everything, each worker included."""
    at = now()
    found = metrics(call)
    slots = call.manager.scheduler.state.slots.values()
    return {**found, "worker_list": [as_map(views.worker_info(slot, at)) for slot in slots]}


def metrics(call: Call) -> dict[str, Any]:
    """Everything that is counted."""
    manager = call.manager
    found = views.metrics(manager.scheduler.state, now(), manager.trouble())
    found["pool"]["tasks_known"] = sorted(each for each in manager.shell.handlers if not each.startswith(RESERVED))
    return {**manager.describe(), **found, "autoscale": manager.scheduler.autoscaler.seen(now())}


def health(call: Call) -> dict[str, Any]:
    return views.health(call.manager.scheduler.state, now(), call.manager.trouble())


def config(call: Call) -> dict[str, Any]:
    return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(call.manager.settings).items()}


def workers(call: Call) -> list[dict[str, Any]]:
    at = now()
    return [as_map(views.worker_info(slot, at)) for slot in call.manager.scheduler.state.slots.values()]


def worker(call: Call) -> dict[str, Any]:
    return as_map(views.worker_info(call.manager.scheduler.supervisor.find(call.text("worker")), now()))


async def worker_lives(call: Call) -> list[dict[str, Any]]:
    """Worker processes that have ended, of one ``worker`` or of all, the last first."""
    worker, limit = call.optional_text("worker"), call.limit()
    return [life._asdict() for life in await call.manager.read_store(lambda store: store.lives(worker, limit))]


def scale(call: Call) -> dict[str, int]:
    """To ``size`` workers, or ``by`` so many more or fewer: the whole pool, or one ``group``."""
    supervisor = call.manager.scheduler.supervisor
    size, by = call.arguments.get("size"), call.arguments.get("by")
    group = _group(call)
    wanted = size if by is None else (supervisor.size(group) + by if isinstance(by, int) else by)
    if isinstance(wanted, bool) or not isinstance(wanted, int):
        raise BadOption(f"scale takes a whole number as size or by, got {wanted!r}")
    supervisor.scale(wanted, now(), group)
    return {"size": supervisor.size(group)}


def _group(call: Call) -> str | None:
    return None if call.arguments.get("group") is None else call.text("group")


def start_worker(call: Call) -> str:
    """One more, in a ``group`` or in the rest; its id."""
    return call.manager.scheduler.start_worker(now(), _group(call) or REST)


def stop_worker(call: Call) -> None:
    """Drain one, and take its slot away."""
    call.manager.scheduler.stop_worker(call.text("worker"), now())


def pause(call: Call) -> None:
    """Start no task of this name."""
    name = call.text("name")
    if name not in call.manager.shell.handlers:
        raise unknown_task(name, call.manager.shell.handlers)
    call.manager.scheduler.intake.pause(name)


def resume(call: Call) -> None:
    """Start tasks of this name again."""
    call.manager.scheduler.intake.resume(call.text("name"))


def breakers(call: Call) -> list[dict[str, Any]]:
    """Every circuit breaker that is not closed, or has counted failures."""
    return [info._asdict() for info in breaker_infos(call.manager.scheduler.state, now())]


def reset_breaker(call: Call) -> None:
    """Close the circuit breaker of this name."""
    name, scheduler = call.text("name"), call.manager.scheduler
    if name not in call.manager.shell.handlers and name not in scheduler.state.breakers:
        raise unknown_task(name, call.manager.shell.handlers)
    scheduler.breakers.reset(name)


def collect(call: Call) -> dict[str, int]:
    """Have the idle workers run their garbage collectors."""
    return {"workers": collect_garbage(call.manager.shell)}


def events(call: Call) -> None:
    """Push every event to this client from now on."""
    call.manager.listen(call.client)


async def reload(call: Call) -> dict[str, Any]:
    """Load the app's code anew, and roll the workers over to it; what came of it."""
    return await call.manager.reloads.reload()


def stop(call: Call) -> None:
    """Shut the daemon down: after the running tasks, or ``now``."""
    if call.flag("now"):
        call.manager.stop_now()
    else:
        call.manager.drain()
