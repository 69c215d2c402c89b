"""The same rows from files, from bytes, in another process, and from the workers of an engine."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from trex2_lightning.errors import InputError
from trex2_lightning.inference.labelling.decoding import decode
from trex2_lightning.inference.labelling.labeller import Labeller, LabelRequest
from trex2_lightning.inference.labelling.rows import LabelRow
from trex2_lightning.structures import Box

Pictures = Callable[..., Path]
NAMES = ("0.jpg", "1.jpg", "2.jpg", "3.jpg", "4.jpg", "torn.jpg")


@pytest.fixture
def files(pictures: Pictures) -> list[Path]:
    folder = pictures(*NAMES)
    (folder / "torn.jpg").write_text("torn")
    return [folder / name for name in NAMES]


def rows_of(labeller: Labeller, files: Sequence[Path]) -> dict[str, LabelRow]:
    transform = labeller.predictor.transform
    return {row.name: row for file in files for row in labeller.rows(decode([(str(file), file)], transform))}


def assert_same(table: Sequence[Mapping[str, Any]], rows: Mapping[str, LabelRow]) -> None:
    """Within rounding."""
    assert len(table) == len(rows)
    for line in table:
        row = rows[line["path"]]
        assert (line["width"], line["height"], bool(line["skipped"])) == (row.width, row.height, bool(row.skipped))
        assert line["scores"] == pytest.approx([found.score for found in row.found], abs=1e-4)
        best = zip(line["names"][:3], line["boxes"][:3], row.found, strict=False)
        assert all(name == found.name and box == pytest.approx(found.box, abs=0.1) for name, box, found in best)


def test_a_pickled_labeller_finds_the_same_without_having_taken_the_detector_along(
    labeller: Labeller, files: list[Path]
) -> None:
    rows = rows_of(labeller, files)
    sent = pickle.dumps(labeller)
    assert len(sent) < 5_000
    assert rows_of(pickle.loads(sent), files) == rows
    assert [bool(row.skipped) for row in rows.values()] == [False] * 5 + [True]


def test_a_table_of_arrow_has_the_rows(labeller: Labeller, files: list[Path]) -> None:
    pytest.importorskip("pyarrow")
    paths, contents = [str(file) for file in files], [file.read_bytes() for file in files]
    for batch in ({"path": paths}, {"path": paths, "bytes": contents}):
        table = labeller(batch)
        assert table["path"].to_pylist() == paths
        assert_same(table.to_pylist(), rows_of(labeller, files))
    nothing = labeller({"path": paths[-1:]})
    assert nothing.schema == table.schema
    assert (
        nothing["skipped"].to_pylist() == [f"{paths[-1]}: cannot be read"] or "cannot" in nothing["skipped"][0].as_py()
    )


@pytest.mark.slow
def test_two_workers_of_ray_write_the_rows_of_one_process(
    request_: LabelRequest, files: list[Path], tmp_path: Path
) -> None:
    ray, parquet = pytest.importorskip("ray"), pytest.importorskip("pyarrow.parquet")
    from ray.data import from_items

    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
    try:
        pictures = from_items([{"path": str(file)} for file in files], override_num_blocks=3)
        found = pictures.map_batches(Labeller, fn_constructor_args=(request_,), batch_size=2, concurrency=2)
        found.write_parquet(str(tmp_path / "rows"))
    finally:
        ray.shutdown()
    assert_same(parquet.read_table(tmp_path / "rows").to_pylist(), rows_of(Labeller(request_), files))


def test_what_was_asked_is_told_by_what_files_hold(request_: LabelRequest, pictures: Pictures, tmp_path: Path) -> None:
    """So that a shard on another machine, with its files elsewhere, has the same request."""
    folder, other = pictures("0.jpg", "1.jpg"), tmp_path / "elsewhere.jpg"
    other.write_bytes((folder / "0.jpg").read_bytes())
    marks = {"cell": [Box(1, 2, 30, 40)]}
    first, moved, changed = (
        replace(request_, references=((file, shown),)).described()
        for file, shown in (
            (folder / "0.jpg", marks), (other, marks), (folder / "0.jpg", {"cell": [Box(1, 2, 30, 41)]})
        )
    )  # fmt: skip
    assert first == moved != changed
    assert replace(request_, references=((folder / "1.jpg", marks),)).described() != first
    with pytest.raises(InputError, match=r"gone\.jpg: cannot be read \(No such file or directory\)"):
        replace(request_, references=((Path("gone.jpg"), marks),)).described()


def test_thresholds_of_single_categories_go_before_the_general_one(request_: LabelRequest) -> None:
    labeller = Labeller(replace(request_, threshold=0.25, thresholds={"red block": 0.75}))
    assert labeller.thresholds == {"red block": 0.75, "blue block": 0.25}
    own = Labeller(replace(request_, threshold=None, thresholds={"red block": 0.75}))
    assert own.thresholds == {"red block": 0.75, "blue block": pytest.approx(0.3)}
    with pytest.raises(InputError, match="the threshold of 'pink' is for none of the categories"):
        _ = Labeller(replace(request_, thresholds={"pink": 0.75})).thresholds
