"""The name of a device -> the device."""

from __future__ import annotations

import torch

from las.errors import UserError


def choose_device(name: str, rank: int = 0) -> torch.device:
    """auto (a GPU where there is one), cpu, cuda or cuda:N; of several ranks on a machine each takes its own GPU."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and rank:
        name = f"cuda:{rank}"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"device {name!r}: wanted auto, cpu, cuda or cuda:N") from None
    if device.type not in ("cpu", "cuda"):
        raise UserError(f"device {name!r}: wanted auto, cpu, cuda or cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {name!r}: this machine has {torch.cuda.device_count()} such devices; use device cpu or auto"
        )
    return device
