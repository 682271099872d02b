"""All generations: the one that serves, the one that starts, those that end.

Runs in the parent. A reload changes everything or nothing: the new generation is loaded, checked,
bound, started and confined beside the one that serves, and only when all of it is ready the two
change places (docs/decisions/0004). The first generation starts in the same way.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from smtpd_ps.contract import messages as m
from smtpd_ps.contract.values import MAX_GENERATIONS, Process
from smtpd_ps.parent.agents import Agents
from smtpd_ps.parent.children import Child, Children, reason_of
from smtpd_ps.parent.generation import Generation, Plan
from smtpd_ps.parent.listeners import Listeners
from smtpd_ps.parent.programs import Programs
from smtpd_ps.runtime import tracing
from smtpd_ps.runtime.log import Log
from smtpd_ps.runtime.loop import Loop, Timer

START_SECS = 60.0  # for a generation to be ready
RELOAD_SECS = 30.0  # the operator waits for this one
RETIRE_SECS = 5.0  # for an old smtp to say that it accepts nobody any more
RETIRED_KEPT = 4  # that end in their own time; older ones are hurried
RETIRED_MOST = 8  # beyond it there is no reload
MAX_TEXT = 2000  # of an answer

Answer = Callable[[bool, str], None]


class ReloadRefused(Exception):
    """Why a configuration cannot be used, in one line or several."""


@dataclass(slots=True)
class Generations:
    """`make` makes a Generation of a plan, `load` a plan of the configuration as it is now (it raises
    ReloadRefused). `on_settled` is called at the end of every reload.
    """

    loop: Loop
    log: Log
    children: Children
    listeners: Listeners
    make: Callable[[int, Plan, Callable[[], None], Callable[[str], None]], Generation]
    load: Callable[[], Plan]
    on_settled: Callable[[], None] = lambda: None
    current: Generation | None = None
    starting: Generation | None = None
    retired: list[Generation] = field(default_factory=list)
    stopping: bool = False
    _gone: list[Generation] = field(default_factory=list)  # agents and programs of theirs may still be ending
    _answer: Answer | None = None  # to who asked for the reload under way
    _timer: Timer | None = None

    def all(self) -> list[Generation]:
        """Those whose processes are there, the starting one left out; the oldest first."""
        return [*self.retired, self.current] if self.current is not None else list(self.retired)

    @property
    def busy(self) -> bool:
        """Whether a reload is under way."""
        return self._answer is not None

    # The first one.

    def start(self, plan: Plan, on_ready: Callable[[], None], on_failed: Callable[[str], None]) -> None:
        """Start the first generation. Raises OSError."""
        self.starting = generation = self.make(0, plan, on_ready, on_failed)
        generation.start_programs()
        self.children.start(generation.crew, generation.plans(), generation.handlers, START_SECS)

    def serve(self, lasting: Mapping[Process, Child]) -> None:
        """Let the starting generation take over. Raises OSError, having changed nothing."""
        generation = self.starting
        assert generation is not None
        generation.go(lasting)
        self.starting, self.current = None, generation
        self.listeners.adopt()
        generation.tables.watch(self.loop)
        for child in generation.crew.children.values():
            if child.plan.common.verbose != self.log.verbose:
                child.tell(m.LogLevel(self.log.verbose))
            if tracing.mask:
                child.tell(m.TraceMask(tracing.mask))

    # Reloading.

    def reload(self, lasting: Mapping[Process, Child], answer: Answer) -> None:
        """Read the configuration again, and have it serve. `answer` is called once: done, or why not."""
        if self.stopping or self.current is None or self.busy:
            text = "smtpd_ps is stopping" if self.stopping else "a reload is under way already"
            self.log.warning(f"not reloaded: {text}")
            answer(False, text)
            return
        self._answer = answer
        if len(self.retired) >= RETIRED_MOST:
            self._refuse(f"{len(self.retired)} earlier configurations have sessions still; try again in a minute")
            return
        self.log.info("reloading the configuration")
        try:
            plan = self.load()
        except ReloadRefused as error:
            self.listeners.abandon()
            self._refuse(str(error))
            return
        generation = self.make(self._next_index(), plan, lambda: self._ready(lasting), self._failed)
        self.starting = generation
        generation.start_programs()
        try:
            self.children.start(generation.crew, generation.plans(), generation.handlers, RELOAD_SECS)
        except OSError as error:
            self._failed(f"cannot start the processes: {reason_of(error)}")

    def _next_index(self) -> int:
        taken = {generation.index for generation in self.all()}
        assert self.current is not None
        index = self.current.index
        while index in taken:
            index = (index + 1) % MAX_GENERATIONS
        return index

    def _ready(self, lasting: Mapping[Process, Child]) -> None:
        old = self.current
        assert old is not None
        try:
            self.serve(lasting)
        except OSError as error:
            self._failed(f"cannot hand over the listeners: {reason_of(error)}")
            return
        self.retired.append(old)
        self._timer = self.loop.call_later(RETIRE_SECS, self._done)
        old.retire(self._done, lambda: self._ended(old))
        late = [generation for generation in self.retired if not generation.hurried]
        for generation in late[:-RETIRED_KEPT]:
            generation.hurry()

    def _failed(self, text: str) -> None:
        """Nothing of the new generation has served."""
        generation, self.starting = self.starting, None
        if generation is not None:
            self.children.release(generation.crew, kill=True)
            generation.programs.release()
            self._gone.append(generation)
        self.listeners.abandon()
        self._refuse(text)

    def _refuse(self, text: str) -> None:
        for line in text.splitlines():
            self.log.error(line)
        self.log.error("configuration not reloaded, nothing has changed")
        self._settle(False, text)

    def _done(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self.busy and self.current is not None:
            self.log.info(f"configuration reloaded, generation {self.current.index} serves")
            self._settle(True, "configuration reloaded")

    def _settle(self, ok: bool, text: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer(ok, text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]}...")
        self.on_settled()

    # Ending.

    def _ended(self, generation: Generation) -> None:
        if self.stopping:
            return  # all end together
        self.log.info(f"generation {generation.index} has ended")
        self.retired.remove(generation)
        self.children.release(generation.crew)
        generation.tables.end()
        generation.programs.release()
        self._gone.append(generation)

    def reap(self) -> None:
        """Collect what has ended (after SIGCHLD)."""
        self.children.reap()
        for agents in self._agents():
            agents.reap()
        for programs in self._programs():
            programs.reap()
        for generation in (*self.all(), *self._gone):
            generation.openers.reap()
        self._gone = [
            generation for generation in self._gone
            if generation.programs.running or generation.openers.busy
            or any(agents.running for agents in generation.agents)
        ]  # fmt: skip

    def _agents(self) -> list[Agents]:
        return [agents for generation in (*self.all(), *self._gone) for agents in generation.agents]

    def _programs(self) -> list[Programs]:
        starting = () if self.starting is None else (self.starting,)
        return [generation.programs for generation in (*self.all(), *starting, *self._gone)]

    def stop(self) -> None:
        """The daemon stops: a reload under way comes to nothing, and no generation ends before the others."""
        self.stopping = True
        if self.starting is not None and self.current is not None:
            self._failed("smtpd_ps is stopping")

    def drain(self, process: Process, on_drained: Callable[[], None]) -> None:
        """Have this process of every generation finish what is under way."""
        children = [child for generation in self.all() for child in generation.crew.of(process)]
        left = len(children)

        def drained() -> None:
            nonlocal left
            left -= 1
            if not left:
                on_drained()

        for child in children:
            child.drain(drained)

    def end_others(self) -> None:
        """End all agents and programs, when delivery and lookup are gone."""
        for agents in self._agents():
            agents.end()
        for programs in self._programs():
            programs.end()
