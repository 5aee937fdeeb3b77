"""A peer in a process of its own that stays: asked line by line, while our programs compile."""

from __future__ import annotations

import contextlib
import importlib
import json
import os
import queue
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any


class Peer:
    """The other end: starts the process, and asks it.

    Args:
        module: of this package, whose functions are called.
    """

    def __init__(self, module: str) -> None:
        self.gone = ""  # why there is none any more
        self._unread = 0
        command = [sys.executable, "-m", "peers.serving", module]
        folders = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, folders))},
        )
        self._answers: queue.Queue[str] = queue.Queue()
        self._listener = threading.Thread(target=self._listen, daemon=True)
        self._listener.start()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def prepare(self, function: str, **arguments: Any) -> None:
        """Calls a function of the module without waiting for it, nor for what it returns."""
        with contextlib.suppress(BrokenPipeError):
            self._send(function, arguments)
            self._unread += 1

    def ask(self, function: str, seconds: float, **arguments: Any) -> dict[str, Any]:
        """What a function of the module returns; {"error": why} where it did not in time."""
        if self.gone:
            return {"error": self.gone}
        end = time.monotonic() + seconds
        try:
            self._send(function, arguments)
            for _ in range(self._unread + 1):
                answer = self._answers.get(timeout=max(end - time.monotonic(), 0.1))
                if not answer:
                    raise BrokenPipeError
            self._unread = 0
        except queue.Empty:
            self.gone = "it took too long"
        except BrokenPipeError:
            self.gone = "its process ended"
        else:
            found: dict[str, Any] = json.loads(answer)
            self.gone = found.get("gone", "")
            return {"error": self.gone} if self.gone else found
        gone = self.gone
        self.close()
        return {"error": gone}

    def _send(self, function: str, arguments: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        print(json.dumps([function, arguments]), file=self._process.stdin, flush=True)

    def close(self) -> None:
        """Ends the process."""
        self.gone = self.gone or "closed"
        self._process.kill()
        self._process.wait()
        self._listener.join()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            with contextlib.suppress(BrokenPipeError):
                pipe.close()


def _serve(name: str) -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # What the peer prints is no answer.
    try:
        module, missing = importlib.import_module(f"peers.{name}"), ""
    except ImportError as error:
        module, missing = None, f"{error}"
    for line in sys.stdin:
        function, arguments = json.loads(line)
        try:
            found = {"gone": missing} if missing else getattr(module, function)(**arguments)
        except Exception as error:  # Of whatever kind: it is the peer's answer.
            said = " ".join(str(error).split())[:200]
            found = {"error": f"{type(error).__name__}: {said}"}
        print(json.dumps(found), file=answers, flush=True)


if __name__ == "__main__":
    _serve(sys.argv[1])
