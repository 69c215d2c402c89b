"""Boxes and labels land where they should; sheets and curves show all that they were given."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from trex2_lightning.evaluation.curves import curve
from trex2_lightning.inference.pictures import contact_sheet, draw_boxes
from trex2_lightning.structures import Box, Point

GREY = (90, 90, 90)
Pixels = np.ndarray


def picture(width: int = 400, height: int = 400) -> Image.Image:
    return Image.new("RGB", (width, height), GREY)


def pixels(image: Image.Image) -> Pixels:
    """(H, W, 3)"""
    return np.asarray(image).astype(int)


def touched(image: Image.Image) -> tuple[int, int, int, int]:
    """Tight xyxy box, ends included, of what was drawn on grey."""
    rows, columns = np.nonzero((pixels(image) != GREY).any(-1))
    return columns.min(), rows.min(), columns.max(), rows.max()


def dark(area: Pixels) -> int:
    """Number of pixels darker than the background, as only letters are."""
    return int((area.max(-1) < 60).sum())


def test_a_box_is_an_outline_with_its_label_above() -> None:
    drawn = draw_boxes(picture(), torch.tensor([[100.0, 150.0, 300.0, 250.0]]), ["red star"])
    left, top, right, bottom = touched(drawn)
    assert (left, right, bottom) == (100, 300, 250)
    assert 120 < top < 145
    assert (pixels(drawn)[160:240, 110:290] == GREY).all()
    colour = pixels(drawn)[200, 100]
    label = pixels(drawn)[top:150, 100:300]
    assert (label == colour).all(-1).sum() > 300
    assert dark(label) > 50  # the letters


def test_the_picture_handed_in_stays_as_it_was() -> None:
    image = picture()
    draw_boxes(image, torch.tensor([[100.0, 150.0, 300.0, 250.0]]), ["red star"])
    assert (pixels(image) == GREY).all()


def test_small_pictures_are_magnified_and_large_ones_are_not() -> None:
    drawn = draw_boxes(picture(128, 160), torch.tensor([[10.0, 100.0, 40.0, 140.0]]), ["x"])
    assert drawn.size == (384, 480)
    left, _, right, bottom = touched(drawn)
    assert (left, right, bottom) == (30, 120, 420)
    assert draw_boxes(picture(800, 600), torch.zeros(0, 4), []).size == (800, 600)


def test_without_boxes_nothing_is_drawn() -> None:
    assert (pixels(draw_boxes(picture(), torch.zeros(0, 4), [], torch.zeros(0))) == GREY).all()


def test_a_label_has_one_colour_in_all_pictures() -> None:
    left, right = torch.tensor([[50.0, 100.0, 150.0, 200.0]]), torch.tensor([[250.0, 100.0, 350.0, 200.0]])
    both = pixels(draw_boxes(picture(), torch.cat([left, right]), ["cat", "dog"], torch.tensor([0.4, 0.3])))
    alone = pixels(draw_boxes(picture(), right, ["dog"]))
    assert both[150, 250].tolist() == alone[150, 250].tolist()
    assert both[150, 250].tolist() != both[150, 50].tolist()


@pytest.mark.parametrize(("scores", "top"), [([0.9, 0.2], "cat"), ([0.2, 0.9], "dog")])
def test_the_best_detection_lies_on_top(scores: list[float], top: str) -> None:
    box = torch.tensor([[100.0, 150.0, 300.0, 250.0]])
    drawn = pixels(draw_boxes(picture(), box.repeat(2, 1), ["cat", "dog"], torch.tensor(scores)))
    assert drawn[200, 100].tolist() == pixels(draw_boxes(picture(), box, [top]))[200, 100].tolist()


def test_scores_are_written() -> None:
    box = torch.tensor([[100.0, 150.0, 300.0, 250.0]])
    plain, scored = draw_boxes(picture(), box, ["cat"]), draw_boxes(picture(), box, ["cat"], torch.tensor([0.5]))
    strip = slice(135, 149)
    assert (pixels(scored)[strip] != GREY).any(-1).sum() > 1.5 * (pixels(plain)[strip] != GREY).any(-1).sum()


@pytest.mark.parametrize("corner", [(0.0, 0.0), (380.0, 0.0), (380.0, 380.0)])
def test_a_label_stays_whole_at_the_border(corner: tuple[float, float]) -> None:
    x, y = corner
    inside = draw_boxes(picture(), torch.tensor([[150.0, 150.0, 170.0, 170.0]]), ["a long label"])
    letters = dark(pixels(inside))
    at_border = draw_boxes(picture(), torch.tensor([[x, y, x + 19, y + 19]]), ["a long label"])
    assert dark(pixels(at_border)) == pytest.approx(letters, rel=0.05)


def test_exemplars_are_white_with_a_black_edge_on_top_of_detections() -> None:
    box = [100.0, 150.0, 300.0, 250.0]
    drawn = pixels(
        draw_boxes(
            picture(), torch.tensor([box]), ["cell"], exemplars={"cell": [Box(*box)], "ring": [Point(200.0, 320.0)]}
        )
    )
    edge = drawn[200, 98:110].tolist()
    assert [255, 255, 255] in edge
    assert [0, 0, 0] in edge
    assert drawn[320, 200].tolist() == [255, 255, 255]
    assert [drawn[320, x].tolist() for x in (192, 208)] == [[0, 0, 0]] * 2
    assert (drawn[260:290, 100:300] == GREY).all()


def test_exemplars_are_magnified_with_the_picture() -> None:
    left, _, right, bottom = touched(
        draw_boxes(picture(128, 128), torch.zeros(0, 4), [], exemplars={"x": [Box(30, 60, 90, 120)]})
    )
    assert (left, right, bottom) == (90, 270, 360)


def test_any_mode_and_any_script() -> None:
    drawn = draw_boxes(Image.new("L", (400, 400), 90), torch.tensor([[100.0, 150.0, 300.0, 250.0]]), ["красная звезда"])
    assert drawn.mode == "RGB"


def test_a_sheet_shows_every_picture(tmp_path: Path) -> None:
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255)]
    path = tmp_path / "sheet.png"
    contact_sheet([Image.new("RGB", (60, 30), c) for c in colours], ["a", "b", "c"], path, columns=2)
    with Image.open(path) as image:
        sheet = pixels(image.convert("RGB"))
    places = []
    for colour in colours:
        rows, columns = np.nonzero((sheet == colour).all(-1))
        assert len(rows) > 0.1 * sheet.shape[0] * sheet.shape[1]
        places.append((rows.mean() > sheet.shape[0] / 2, columns.mean() > sheet.shape[1] / 2))
    assert places == [(False, False), (False, True), (True, False)]


def test_titles_are_shown_as_they_are(tmp_path: Path) -> None:
    """Names of files are no formulae, and may have bytes that are no UTF-8."""
    contact_sheet([Image.new("RGB", (60, 30))] * 2, ["a $\\frac$.jpg", "gr\udcf6.jpg"], tmp_path / "sheet.png", 2)
    assert (tmp_path / "sheet.png").is_file()


def test_a_curve_has_one_line_per_series_and_takes_gaps(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    series = {"seen": [(100, 0.1), (200, 0.4), (300, 0.5)], "rare": [(100, float("nan")), (150, 0.1), (300, 0.2)]}
    curve(series, path, "AP on val")
    with Image.open(path) as image:
        chart = pixels(image.convert("RGB"))
    for colour in [(31, 119, 180), (255, 127, 14)]:  # the first two of matplotlib's cycle
        assert (chart == colour).all(-1).sum() > 100


def test_on_logarithmic_axes_equal_factors_are_equal_distances(tmp_path: Path) -> None:
    path = tmp_path / "curve.png"
    curve({"a": [(10, 1), (100, 10), (1000, 100)]}, path, "seconds", "names", logarithmic=True)
    with Image.open(path) as image:
        rows, columns = np.nonzero((pixels(image.convert("RGB"))[100:] == (31, 119, 180)).all(-1))  # below the legend
    order = np.argsort(columns)
    middle = np.interp(columns.mean(), columns[order], rows[order])
    assert middle == pytest.approx(rows.mean(), abs=3)
