"""Rows as a table of Arrow, which Parquet files hold."""

from __future__ import annotations

from collections.abc import Sequence

import pyarrow as pa

from trex2_lightning.inference.labelling.rows import LabelRow

# Written out, as lists that are all empty would have no type of their own.
SCHEMA = pa.schema(
    {
        "path": pa.string(),
        "width": pa.int32(),  # pixels, 0 where the picture was skipped
        "height": pa.int32(),
        "names": pa.list_(pa.string()),  # of what was found, best first
        "scores": pa.list_(pa.float64()),
        "boxes": pa.list_(pa.list_(pa.float64(), 4)),  # xyxy in pixels
        "skipped": pa.string(),  # why nobody could look at the picture, else ""
    }
)


def to_table(rows: Sequence[LabelRow]) -> pa.Table:
    """A line for each row."""
    columns = {
        "path": [row.name for row in rows],
        "width": [row.width for row in rows],
        "height": [row.height for row in rows],
        "names": [[found.name for found in row.found] for row in rows],
        "scores": [[found.score for found in row.found] for row in rows],
        "boxes": [[list(found.box) for found in row.found] for row in rows],
        "skipped": [row.skipped for row in rows],
    }
    return pa.table(columns, SCHEMA)
