"""A file of tests as a program of its own, on several devices that a CPU stands in for."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any


def printed_on(devices: int, file: str) -> Any:
    """What a file of tests prints last, as JSON, where it is run as a program.

    Args:
        devices: how many it sees.
        file: its path.
    """
    # Most of the time is compiling: without optimizing, half of it.
    flags = f"--xla_force_host_platform_device_count={devices} --xla_backend_optimization_level=0"
    flags = f"{os.environ.get('XLA_FLAGS', '')} {flags}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    # A program finds the modules beside it, not those of the tests.
    places = [str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, places))
    done = subprocess.run(
        [sys.executable, file], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])
