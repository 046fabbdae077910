"""The suite of the bench: which models it names, and which pairs of them it checks."""

from __future__ import annotations

MODELS = 60
CHECKS = 200
# Every tenth check is also run as a command of its own.
SAMPLE = range(0, CHECKS, 10)


def name_of(number: int) -> str:
    """Return the file name of a model."""
    return f"suite_{number}.pt"


def pair(check: int) -> tuple[str, str]:
    """Return the files of the models that a check is about."""
    return name_of(check * 7 % MODELS), name_of((check * 11 + 1 + check // MODELS) % MODELS)


def suite_text() -> str:
    """Return the suite file."""
    lines = ["[models]"]
    for number in range(MODELS):
        lines.append(f'"{name_of(number)}" = "{name_of(number)}"')
    for check in range(CHECKS):
        producer, consumer = pair(check)
        lines += ["[[pair]]", f'producer = "{producer}"', f'consumer = "{consumer}"']
    return "\n".join(lines)
