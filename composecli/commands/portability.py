"""Portability: the reasons why a model cannot move to another device."""

from __future__ import annotations

from composecli.commands.opened_model import OpenedModel, OpenedModels
from composecli.commands.requests import Options
from composecli.core.findings import Finding, Side
from composecli.core.rules import Rule


def device_notes(parts: OpenedModels, options: Options) -> tuple[Finding, ...]:
    """Return a finding for each model with another device than this one baked in as a constant.

    If shapes were explored on meta, a finding says so, too.
    """
    notes = list[Finding]()
    running = _device_type(options.real_device)
    for part in dict.fromkeys(parts):
        others = [device for device in _baked_devices(part) if _device_type(device) != running]
        if others:
            devices = ", ".join(others)
            title = f"{part.name} holds {devices} as a constant and runs on {running} here"
            notes.append(Finding(Rule.DEVICE_BAKED_IN, title, (Side(part.name, "its code"),)))
    if options.device == "meta":
        title = "shapes were explored on meta, and the verdict rests on a forward on the cpu"
        notes.append(Finding(Rule.EXPLORED_ON_META, title))
    return tuple(notes)


def _baked_devices(part: OpenedModel) -> tuple[str, ...]:
    if part.target.file is None:
        return ()
    return part.target.file.devices


def _device_type(device: str) -> str:
    """Return `cuda` for `cuda:1`."""
    return device.partition(":")[0]


def device_ties(part: OpenedModel) -> tuple[str, ...]:
    """Return a sentence for everything that keeps a model from moving to another device."""
    notes = list[str]()
    devices = _baked_devices(part)
    if devices:
        names = ", ".join(devices)
        notes.append(f"its code holds {names} as a constant: it cannot run on another device")
    if len(part.facts.devices) > 1:
        notes.append(f"its tensors lie on several devices: {', '.join(part.facts.devices)}")
    if any(dtype.startswith(("quint", "qint")) for dtype in part.facts.dtypes):
        notes.append("quantised tensors run on the CPU alone")
    if "float64" in part.facts.dtypes:
        notes.append("float64 tensors cannot move to Apple's mps")
    return tuple(notes)
