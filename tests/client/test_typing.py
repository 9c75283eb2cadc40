"""The types of the client as its users' strict type checkers see them."""

import subprocess
import sys
from pathlib import Path


def test_a_service_that_uses_the_client_passes_mypy_strict(tmp_path: Path) -> None:
    source = Path(__file__).with_name("typed_use.py")
    flags = ["--strict", "--cache-dir", str(tmp_path), "--config-file", ""]
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *flags, str(source)], cwd=tmp_path, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == 0, done.stdout + done.stderr
