"""A process of instances on a device that is played, for tests of links between such processes.

    python -m tests.support.played_instance PARENT

as `worker.process`. Appends a line to the file of `PLAYED_COPIES` for each copy by its driver.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from penstock.cuda.calls import BINDINGS
from tests.support.cuda_memory import FakeCudaMemory
from tests.support.played_cuda import play, play_executor
from worker.process import main


class _Counted(FakeCudaMemory):
    def cuMemcpyAsync(self, to: int, source: int, size: int, stream: int) -> tuple[Any, ...]:
        with Path(os.environ["PLAYED_COPIES"]).open("a") as log:
            log.write(f"{size}\n")
        return super().cuMemcpyAsync(to, source, size, stream)


if __name__ == "__main__":
    play(setattr)
    play_executor(setattr)
    sys.modules[BINDINGS] = _Counted()  # type: ignore[assignment]
    main()
