"""The paper's claims, in few words and in its own.

``quotation`` is what stands in the paper, word for word; ``claim`` says it shortly, in our words. e1 and e2 are the
direction and the size of one statement. Sections are the paper's.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import pandas as pd

FILE = Path(__file__).parent / "claims.csv"


class PaperClaim(NamedTuple):
    """A claim: its letter, our short form, the paper's words, where they stand, what limits any verdict."""

    key: str
    claim: str
    quotation: str
    section: str
    caveat: str


def paper_claims() -> dict[str, PaperClaim]:
    """The claims by key, in the paper's order, then those of the abstract."""
    table = pd.read_csv(FILE, dtype=str, keep_default_na=False)
    return {row["key"]: PaperClaim(**row) for row in table.to_dict("records")}
