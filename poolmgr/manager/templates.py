"""The templates of a pool, by the generation of the code that they have imported.

Usually there is one. While code is reloaded there are two; and the old one stays, as the warden of what it has forked,
for as long as a worker of it finishes something.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable, Collection
from typing import Any

from poolmgr.manager.launch import Launched, launch_template
from poolmgr.manager.process import WorkerProcess
from poolmgr.manager.template import Template
from poolmgr.worker.warden import kill_pool, template_label


class Templates:
    """Has each worker forked by the template of its generation.

    Args:
        order: what the first template was told.
        spawned, failed, unanswered: see ``Template``.
        died: told the generation (0: of code that is still being imported) and how.
    """

    def __init__(
        self,
        order: dict[str, Any],
        spawned: Callable[[WorkerProcess, int], None],
        failed: Callable[[WorkerProcess, str], None],
        unanswered: Callable[[WorkerProcess], None],
        died: Callable[[int, str], None],
    ) -> None:
        self._order = order
        self._labels = map(template_label, itertools.count(2))  # of the next ones
        self._told = spawned, failed, unanswered
        self._failed = failed
        self._died = died
        self._loop = asyncio.get_running_loop()
        self._by_generation: dict[int, Template] = {}
        self._needed: set[int] = set()  # generations of which more may be asked for
        self._others: set[Template] = set()  # importing, or ending
        self._ending: set[asyncio.Task[None]] = set()

    @property
    def pids(self) -> list[int]:
        """Of the templates that live."""
        found = [template.pid for template in (*self._by_generation.values(), *self._others)]
        return [pid for pid in found if pid is not None]

    @property
    def spares(self) -> list[int]:
        """The processes that wait to be workers."""
        found = [template.spare for template in (*self._by_generation.values(), *self._others)]
        return [pid for pid in found if pid is not None]

    @property
    def labels(self) -> set[str]:
        """What marks that which the app's modules have started, of each version that is in use. One that is replaced
        after its death hands its label on: workers that it has forked live on, and may use what it has started."""
        return {template.label for template in (*self._by_generation.values(), *self._others)}

    @property
    def unforkable(self) -> list[str]:
        """Why workers are exec'd that were to be forked."""
        return [template.unforkable for template in self._by_generation.values() if template.unforkable is not None]

    def start(self, launched: Launched, generation: int) -> Template:
        """Take over the first one."""
        template = self._make(self._order)
        template.start(launched)
        self._by_generation[generation] = template
        self._needed = {generation}
        return template

    def launch(self, app: list[str]) -> Template:
        """Start another, which imports ``app``. It is to be told of with ``join``, or else with ``discard``."""
        order = {**self._order, "app": app, "label": next(self._labels)}
        template = self._make(order)
        template.lasting = False
        template.start(launch_template(order))
        self._others.add(template)
        self._tell_all()
        return template

    def _make(self, order: dict[str, Any]) -> Template:
        template = Template(order, *self._told, lambda how: self._one_died(template, how))
        return template

    def _one_died(self, template: Template, how: str) -> None:
        self._loop.call_soon(self._tell_all)  # by then another has its place, if one is to have it
        generation = next((number for number, each in self._by_generation.items() if each is template), 0)
        self._died(generation, how)

    def _tell_all(self) -> None:
        """When the daemon dies, each template kills what it has forked, and must live until then."""
        pids = self.pids
        for template in (*self._by_generation.values(), *self._others):
            template.tell_of(pids)

    def join(self, template: Template, generation: int) -> None:
        """From now on workers of this generation are forked from this template."""
        self._others.discard(template)
        self._by_generation[generation] = template
        self._needed.add(generation)

    def settle(self, generation: int, in_use: Callable[[], Collection[int]]) -> None:
        """This is the generation that lasts. Any other goes once it is not ``in_use``."""
        self._needed = {generation}
        for number, template in self._by_generation.items():
            template.lasting = number == generation
        self.release(in_use)

    def release(self, in_use: Callable[[], Collection[int]]) -> None:
        """Let those go that are not needed, and are not ``in_use`` (generations that have a process)."""
        if len(self._by_generation) > len(self._needed):
            kept = self._needed | set(in_use())
            for number, template in list(self._by_generation.items()):
                if number not in kept:
                    del self._by_generation[number]
                    self._others.add(template)
                    self.discard(template)

    def discard(self, template: Template) -> None:
        """Let one go that was never told of, or is not needed any more."""
        task = self._loop.create_task(template.discard())
        self._ending.add(task)
        task.add_done_callback(self._ending.discard)
        task.add_done_callback(lambda _: self._others.discard(template))

    def spawn(self, process: WorkerProcess) -> None:
        """Ask for the process of ``process``; its channels go with the request."""
        template = self._by_generation.get(process.generation)
        if template is None:
            self._loop.call_soon(self._failed, process, "its code was given up")
        else:
            template.spawn(process)

    async def close(self) -> None:
        """End all, and with them what is left of the pool. Safe to call twice."""
        templates = [*self._by_generation.values(), *self._others]
        await asyncio.gather(*(template.close() for template in templates))
        # One that was killed has ended nothing.
        await self._loop.run_in_executor(None, kill_pool, self._order["tag"], (), (), self._order["cgroup"])
