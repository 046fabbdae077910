"""Run check, join and inspect on the sample models, and show what a user would see."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
# Each command with the exit code that it should end with.
COMMANDS = (
    ("composecli check encoder.pt reader.pt", 0),
    ("composecli check encoder.pt reader.pt --fail-on warning", 1),
    ("composecli check linear_10_5.pt relu.pt", 0),
    ("composecli check linear_10_5.pt linear_3_2.pt", 1),
    (
        "composecli join linear_10_5.pt linear_3_2.pt --bridge linear -o joined/bridged.pt --force",
        0,
    ),
    ("composecli check encoder.pt head_1024.pt --input 1,3,32,32", 1),
    (
        (
            "composecli join encoder.pt head_1024.pt --input 1,3,32,32 --bridge auto"
            " -o joined/classifier.pt --force"
        ),
        0,
    ),
    (
        (
            "composecli join --mode parallel linear_10_5.pt linear_10_7.pt"
            " -o joined/side_by_side.pt --force"
        ),
        0,
    ),
    ("composecli check dict_output.pt linear_5_2.pt --select logits", 0),
    ("composecli inspect linear_10_5.pt2", 0),
    ("composecli inspect joined/classifier.pt", 0),
)


def main() -> int:
    """Run every command and print its screen and exit code; return 1 if any code is wrong."""
    expected_count = 0
    (HERE / "joined").mkdir(exist_ok=True)
    for text, expected in COMMANDS:
        print(f"\n$ {text}", flush=True)
        command = [sys.executable, "-m", *shlex.split(text)]
        code = subprocess.run(command, cwd=HERE, check=False).returncode
        print(f"(exit code {code})", flush=True)
        expected_count += code == expected
    print(f"\n{expected_count} of {len(COMMANDS)} commands ended with the expected exit code")
    return int(expected_count != len(COMMANDS))


if __name__ == "__main__":
    sys.exit(main())
