"""Work in a process that dies at whatever system call it is told to."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

STEPS = ("open", "write", "fsync", "link", "unlink", "replace", "rename", "mkdir", "chmod", "close")
KILLED = 9


def killed_at(step: int, torn: bool, work: Callable[[], object]) -> int:
    """Do `work` in a process that dies at its `step`-th system call: before it, or (`torn`) after it, a write half
    done. Its exit code; 0 where it came to the end before."""
    child = os.fork()
    if child:
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    calls = 0

    def counted(name: str) -> Callable[..., Any]:
        real = getattr(os, name)

        def call(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == step:
                try:
                    if torn and name == "write":
                        real(arguments[0], bytes(arguments[1])[: len(arguments[1]) // 2])
                    elif torn:
                        real(*arguments, **named)  # the step is done, its caller never hears of it
                finally:
                    os._exit(KILLED)
            return real(*arguments, **named)

        return call

    try:
        for name in STEPS:
            setattr(os, name, counted(name))
        work()
    except BaseException:  # whatever it is, this process must not go on as a test run
        os._exit(1)
    os._exit(0)
