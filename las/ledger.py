"""What was left out and why: counted by cause, listed by id, never silent."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path

from las.errors import UserError
from las.files import write_text


class Ledger:
    """Collects leavings.

    >>> ledger = Ledger()
    >>> ledger.leave("no text", "utterance-7")
    True
    >>> print(ledger)
    no text: 1 (first: utterance-7)
    """

    def __init__(self) -> None:
        self.cases: dict[str, dict[str, str]] = defaultdict(dict)  # cause -> id -> detail

    def leave(self, cause: str, id: str, detail: str = "") -> bool:
        """Note that `id` was left out because of `cause`; True the first time this pair is seen."""
        new = id not in self.cases[cause]
        self.cases[cause].setdefault(id, detail)
        return new

    def __len__(self) -> int:
        return len({id for ids in self.cases.values() for id in ids})

    def __str__(self) -> str:
        parts = []
        for cause, ids in self.cases.items():
            first, detail = next(iter(ids.items()))
            parts.append(f"{cause}: {len(ids)} (first: {first}{': ' * bool(detail)}{detail})")
        return "; ".join(parts)

    def check(self, total: int, limit: float, way_out: str) -> None:
        """Raise `UserError` when more than the share `limit` of `total` utterances was left out."""
        if len(self) > limit * total:
            raise UserError(f"{len(self)} of {total} utterances left out, more than {limit:.1%} ({self}); {way_out}")

    def lines(self) -> str:
        """One JSON line per case: cause, id, detail."""
        return "".join(
            json.dumps({"cause": cause, "id": id, "detail": detail}, ensure_ascii=False) + "\n"
            for cause, ids in self.cases.items()
            for id, detail in ids.items()
        )

    def take(self, lines: str) -> None:
        """Add what another ledger's `lines` say.

        >>> ledger = Ledger()
        >>> ledger.take('{"cause": "no text", "id": "a", "detail": ""}\\n')
        >>> print(ledger)
        no text: 1 (first: a)
        """
        for line in lines.split("\n"):
            if line:
                self.leave(**json.loads(line))

    def write(self, path: Path) -> None:
        """Write the lines to a file."""
        write_text(path, self.lines())
