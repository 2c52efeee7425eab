"""The demo as a newcomer meets it: a fresh process, until its first alert is on the screen, and until it is done."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench.result import Result

FIRST_ALERT_WITHIN_S = 15.0
TOTAL_WITHIN_S = 120.0


def run() -> list[Result]:
    """Time one run at the default size, against what issue A allows (the baseline; less is better)."""
    with tempfile.TemporaryDirectory() as folder:
        command = [str(Path(sys.executable).with_name("keytrail")), "demo", "--out", str(Path(folder, "demo"))]
        env = os.environ | {"PYTHONUNBUFFERED": "1"}
        started = time.perf_counter()
        first = 0.0
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=env) as process:
            assert process.stdout is not None
            for line in process.stdout:
                if not first and "KT-1001" in line:
                    first = time.perf_counter() - started
        total = time.perf_counter() - started
    if process.returncode != 0 or not first:
        raise RuntimeError(f"the demo ended with {process.returncode}, first alert after {first:.1f} s")
    return [
        Result("demo_first_alert", first, "s", 1, "allowed", FIRST_ALERT_WITHIN_S),
        Result("demo_total", total, "s", 1, "allowed", TOTAL_WITHIN_S),
    ]
