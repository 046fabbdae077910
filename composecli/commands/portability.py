"""Portability: the devices that a model's file ties it to."""

from __future__ import annotations

from composecli.commands.opened_model import OpenedModel
from composecli.commands.session import Session
from composecli.core.findings import Finding, Side
from composecli.core.rules import Rule


def device_notes(parts: tuple[OpenedModel, ...], session: Session) -> list[Finding]:
    """Devices that a trace holds as constants and that are not the one it runs on here."""
    notes = list[Finding]()
    running = session.real_device.partition(":")[0]
    for part in dict.fromkeys(parts):
        devices = part.target.file.devices if part.target.file is not None else ()
        other = [device for device in devices if device.partition(":")[0] != running]
        if other:
            title = f"{part.name} holds {', '.join(other)} as a constant and runs on {running} here"
            notes.append(Finding(Rule.DEVICE_BAKED_IN, title, (Side(part.name, "its code"),)))
    if session.options.device == "meta":
        notes.append(
            Finding(
                Rule.EXPLORED_ON_META,
                "shapes were explored on meta, and the verdict rests on a forward on the cpu",
            )
        )
    return notes


def ties(part: OpenedModel) -> tuple[str, ...]:
    """What would stop a move to another device, in words; nothing where nothing was found."""
    notes = list[str]()
    devices = part.target.file.devices if part.target.file is not None else ()
    if devices:
        notes.append(
            f"its code holds {', '.join(devices)} as a constant: it cannot run on another device"
        )
    if len(part.facts.devices) > 1:
        notes.append(f"its tensors lie on several devices: {', '.join(part.facts.devices)}")
    if any(dtype.startswith(("quint", "qint")) for dtype in part.facts.dtypes):
        notes.append("quantised tensors run on the CPU alone")
    if "float64" in part.facts.dtypes:
        notes.append("float64 tensors cannot move to Apple's mps")
    return tuple(notes)
