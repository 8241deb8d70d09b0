from stepwell.local.runners.handler import HandlerRunner
from stepwell.local.runners.program import ProgramRunner
from stepwell.local.runners.scratch import Scratch


class Runners:
    def __init__(self, *, no_containers: bool = False) -> None:
        s = Scratch()
        self._program, self._handler = ProgramRunner(s), HandlerRunner(s)

    def start(self, job, log, end):
        return (self._handler if job.step.runtime.handler is not None else self._program).start(job, log, end)

    def check(self, step, code):
        return None

    async def close(self) -> None:
        for runner in (self._program, self._handler):
            await runner.close()
