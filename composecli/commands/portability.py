"""Portability: the reasons why a model cannot move to another device."""

from __future__ import annotations

from dataclasses import replace

from composecli.commands.opened_model import OpenedModel, OpenedModels
from composecli.commands.requests import Options
from composecli.commands.results import SeamReport
from composecli.core.findings import Finding, Side
from composecli.core.rules import Rule


def device_notes(parts: OpenedModels, options: Options) -> tuple[Finding, ...]:
    """Return a finding for each model whose code names a device other than the one in use.

    If shapes were explored on meta, a finding says so, too.
    """
    notes = list[Finding]()
    running = _device_type(options.real_device)
    for part in dict.fromkeys(parts):
        others = [device for device in _baked_devices(part) if _device_type(device) != running]
        if others:
            devices = ", ".join(others)
            title = f"{part.name} contains {devices} as a constant but runs on {running} here"
            side = Side(part.name, "its code")
            notes.append(Finding(Rule.DEVICE_BAKED_IN, title, (side,)))
    if options.device == "meta":
        title = "shapes were explored on meta; the verdict rests on a forward on the cpu"
        notes.append(Finding(Rule.EXPLORED_ON_META, title))
    return tuple(notes)


def with_device_notes(
    seams: tuple[SeamReport, ...], parts: OpenedModels, options: Options
) -> tuple[SeamReport, ...]:
    """Return the seams, the first one with the notes on devices: they concern the whole command."""
    notes = device_notes(parts, options)
    if not seams:
        return ()
    findings = (*seams[0].findings, *notes)
    first = replace(seams[0], findings=findings)
    return (first, *seams[1:])


def _baked_devices(part: OpenedModel) -> tuple[str, ...]:
    """Return the devices in the code of a file; a factory has no such file."""
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
        notes.append(f"its code contains {names} as a constant: it cannot run on any other device")
    if len(part.facts.devices) > 1:
        names = ", ".join(part.facts.devices)
        notes.append(f"its tensors are on several devices: {names}")
    is_quantised = any(dtype.startswith(("quint", "qint")) for dtype in part.facts.dtypes)
    if is_quantised:
        notes.append("quantised tensors run only on the CPU")
    if "float64" in part.facts.dtypes:
        notes.append("float64 tensors cannot move to Apple's mps")
    return tuple(notes)
