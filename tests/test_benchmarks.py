"""The benchmarks that measure what the documents promise run, on little: what they say of speed is for people."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SMALL = {
    "bench_schema": ["--sizes", "20", "--steps", "5", "--only", "datetime"],
    "bench_compact": ["--objects", "300", "--updates", "200", "--retain", "50r", "--pause", "0.1"],
    "bench_snapshot": ["--help"],  # of little there is no file beside
    "bench_embedded": ["--sizes", "20", "--rounds", "1"],
    "bench_flat": ["--sizes", "20", "--updates", "500", "--rounds", "1"],
}


@pytest.mark.parametrize("name", SMALL)
def test_a_benchmark_runs(name: str, tmp_path: Path) -> None:
    arguments = SMALL[name] + (["--folder", str(tmp_path)] if name == "bench_compact" else [])
    command = [sys.executable, "-m", f"tests.bench.{name}", *arguments]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout
