"""The benchmarks' figures mean what the page says; small, and no speed is asked for."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from small_reference import SMALL

from trex2_lightning.__main__ import commands
from trex2_lightning.commands import bench
from trex2_lightning.data.index.reading import open_index
from trex2_lightning.errors import InputError
from trex2_lightning.studies import input_speed, speed, startup_speed
from trex2_lightning.studies.appearance_speed import appearance
from trex2_lightning.studies.crowded_speed import crowded_steps
from trex2_lightning.studies.detector_speed import (
    COCO_LENGTHS,
    DOT,
    LVIS_LENGTHS,
    detectors,
    made_up_names,
    sentences,
    write_settings,
)
from trex2_lightning.studies.export_speed import exported
from trex2_lightning.studies.label_speed import labelling
from trex2_lightning.studies.layer_speed import fusion, sampling
from trex2_lightning.studies.speed import demand, index, input_pipeline, renew, speed_page
from trex2_lightning.studies.timing import Row, Setting


@pytest.fixture
def small() -> Setting:
    pytest.importorskip("transformers")
    return SMALL


def test_detectors_find_the_same_and_every_bar_has_its_row(small: Setting, tmp_path: Path) -> None:
    rows = detectors(tmp_path, small)
    assert [row.bar for row in rows] == [">= 1.5", "<= 1e-4", ">= 2", ">= 40", "<= 1.1"]
    assert float(rows[1].figure) < 1e-4
    assert "40 names in 3 chunks" in rows[3].what
    large = Row("", 2.0, 0.01, "")
    assert "cores for each" in demand(tmp_path, large, small)


def test_appearance_is_compared_beside_a_decoder_layer(small: Setting, tmp_path: Path) -> None:
    write_settings(tmp_path, small)
    rows = appearance(tmp_path, small)
    assert [row.bar for row in rows] == ["", "", ">= 1", "", "", "<= 1e-5"]
    assert all(row.figure == f"{row.peer / row.ours:.2f}" for row in rows[:4] if row.peer and row.ours)
    assert float(rows[-1].figure) < 1e-5


def test_fusion_finds_the_same(small: Setting) -> None:
    rows = fusion(small)
    assert [row.what for row in rows[::3]] == [f"256 image and {length} prompt tokens" for length in (82, 195, 254)]
    assert all(float(row.figure) < 1e-4 for row in rows if row.bar)


def test_the_start_of_commands_is_measured_and_its_section_renewed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n\n## Start-up\n\nold\n\n## Detectors\n\nkept\n")
    monkeypatch.setattr(speed, "STARTS", 1)
    monkeypatch.setattr(startup_speed, "COMMANDS", ("train",))
    renew(page, "start-up", 1)
    text = page.read_text()
    assert "old" not in text
    assert text.endswith(" |\n\n## Detectors\n\nkept\n")
    assert re.search(r"^\| trex2 train --help \|  \| \d+\.\d{3} \|  \| < 1\.5 s \|$", text, re.MULTILINE)
    assert re.search(r"^\| import trex2_lightning; [^|]* \| \d+\.\d{3} \| \d+\.\d{3} \|", text, re.MULTILINE)
    with pytest.raises(InputError, match="is no page with sections: make bench writes all of it"):
        renew(tmp_path / "gone.md", "start-up", 1)


def test_the_start_of_what_people_use_is_measured_and_what_can_be_alone_is_a_choice_of_the_command() -> None:
    study = {name for name in commands() if name.startswith(("ablation-", "bench"))} | {"dashboard", "verify-official"}
    assert set(startup_speed.COMMANDS) == set(commands()) - study
    assert speed.RENEWABLE.keys() == bench.SECTIONS.keys()


@pytest.mark.slow
def test_exported_graphs_are_timed_and_find_the_same(small: Setting, tmp_path: Path) -> None:
    pytest.importorskip("onnxruntime")
    rows = exported(tmp_path, small, ("data.size=96", "data.max_size=128", "model.num_queries=20"))
    assert [row.bar for row in rows] == ["", "", "<= 1e-4", "", "<= 1e-4"]
    assert all(float(row.figure) < 1e-4 for row in rows if row.bar)
    assert "40 phrases" in rows[3].what


def test_a_section_that_a_page_lacks_comes_behind_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "exported", lambda *_: [Row("one", 2.0, 1.0, "2.00")])
    page = tmp_path / "page.md"
    page.write_text("# Benchmarks\n\n## Start-up\n\nkept\n\n## Detectors\n\nlast\n")
    for _ in range(2):
        renew(page, "onnx", 1)
    text = page.read_text()
    assert text.split("## ")[2].startswith("Exported, ")
    assert text.count("| one | 2.000 | 1.000 | 2.00 |") == 1
    assert text.endswith("\n\n## Detectors\n\nlast\n")


def test_sampling_and_the_input_pipeline_are_timed(
    small: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_speed, "FILES", 8)
    rows = sampling(small) + input_pipeline(tmp_path, small)
    assert len(rows) == 4
    assert all(row.figure == f"{row.peer / row.ours:.2f}" for row in rows if row.peer and row.ours)


def test_labelling_is_timed_and_weighed(small: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(input_speed, "FILES", 8)
    tiny = ["data.size=64", "data.max_size=96", "model.num_queries=20"]
    speed, weight = labelling(tmp_path, small, tiny, timed=8, between=(8, 16))
    assert speed.figure == f"{speed.peer / speed.ours:.2f}"
    assert abs(float(weight.figure)) < 200
    assert "8 to 16" in weight.what


def test_both_pipelines_read_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for flips and what resizing rounds."""
    monkeypatch.setattr(input_speed, "FILES", 8)
    input_speed.write_images(tmp_path)
    [(pixels, valid)], [(our_pixels, our_valid)] = (list(read()) for read in input_speed.loaders(tmp_path, 128))
    assert pixels.shape == (8, 3, 128, 170)
    assert our_pixels.shape == (8, 3, 128, 192)  # rounded up
    assert valid.sum() == our_valid.sum()
    order = our_pixels.mean((1, 2, 3)).argsort(), pixels.mean((1, 2, 3)).argsort()
    sides = [torch.stack([side, side.flip(-1)], 1) for side in (our_pixels[order[0], ..., :170], pixels[order[1]])]
    differences = (sides[0][:, :1] - sides[1]).abs().mean((2, 3, 4)).amin(1)
    assert differences.max() < 0.05


def test_the_index_is_measured_beside_pycocotools(small: Setting, tmp_path: Path) -> None:
    rows = index(tmp_path, small._replace(images=200, boxes=1000))
    assert [row.bar for row in rows] == ["< 1 s", "", "< 150", "< 1,907"]
    assert rows[0].what.startswith("opening 200 images with 1,000 boxes")
    records = open_index(tmp_path / "index")
    assert (len(records.images), records.images[7].boxes.shape[1]) == (200, 4)
    assert sum(len(image.boxes) for image in records.images) == 1000
    assert float(rows[3].figure) > 100  # a process with torch in it


def test_names_are_packed_into_as_many_chunks_as_the_limit_needs() -> None:
    names = made_up_names(COCO_LENGTHS, 80)
    assert len(set(names)) == 80
    [sentence] = sentences(names, 256)
    assert sentence.shape == (1, 194)
    chunks = sentences(made_up_names(LVIS_LENGTHS, 1203), 256)
    assert len(chunks) == 16
    assert max(chunk.shape[1] for chunk in chunks) <= 256
    assert sum(int((chunk == DOT).sum()) for chunk in chunks) == 1203


def test_the_page_shows_bars_and_leaves_out_what_was_not_timed() -> None:
    text = speed_page(
        {"Detectors": [Row("one", 2.0, 0.5, "4.00", ">= 1.5"), Row("two", None, None, "1e-6")]}, 2, "Demand."
    )
    assert "| one | 2.000 | 0.500 | 4.00 | >= 1.5 |" in text
    assert "| two |  |  | 1e-6 |  |" in text
    assert text.endswith("Demand.\n")


def test_crowded_steps_are_timed_with_and_without_the_limit() -> None:
    tiny = ("data.size=64", "data.max_size=64", "model.num_queries=20", "loss.denoising={queries: 4, limit: 4}")
    head, _, bounded, free = crowded_steps((2, 8), 1, *tiny).splitlines()
    assert head == "| a step takes, s | 2 boxes | 8 boxes |"
    assert bounded.startswith("| `loss.denoising.limit=4` | ")
    assert free.startswith("| no limit | ")
    assert all("(1.0)" in line for line in (bounded, free))
