"""Figures of a run -> JSON lines, and TensorBoard's file where it is installed."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from torch import Tensor

from las.files import write_text


class Log:
    """Figures as JSON lines, and for TensorBoard where it is installed; a silent one writes nothing."""

    def __init__(self, folder: Path, silent: bool = False):
        self.path = folder / "log.jsonl"
        self.silent = silent
        self.board = None
        if silent:
            return
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self.board = SummaryWriter(str(folder / "tensorboard"))

    def write(self, update: int, kind: str, figures: dict[str, float]) -> None:
        if self.silent:
            return
        short = {name: value if isinstance(value, int) else float(f"{value:.6g}") for name, value in figures.items()}
        line = {"update": update, "kind": kind} | short
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        if self.board is not None:
            for name, value in figures.items():
                self.board.add_scalar(f"{kind}/{name}", value, update)

    def take_back(self, update: int, within: bool = False) -> None:
        """Drop the lines after an update, of an earlier start that went on from there, and a line that was cut off.

        `within` an epoch, be it at its last update, what came at its end is dropped too: it comes again.
        """
        if self.silent or not self.path.exists():
            return
        kept = []
        for line in self.path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                found = json.loads(line)
                again = within and found["update"] == update and found["kind"] in ("epoch", "valid")
                if found["update"] <= update and not again:
                    kept.append(line + "\n")
        write_text(self.path, "".join(kept))

    def picture(self, update: int, pixels: Tensor | None) -> None:
        """Show pixels (rows, columns, 3) uint8, if there are any."""
        if self.board is not None and pixels is not None:
            self.board.add_image("attention", pixels, update, dataformats="HWC")

    def close(self) -> None:
        if self.board is not None:
            self.board.close()
