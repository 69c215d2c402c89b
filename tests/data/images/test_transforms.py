from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2
from torchvision.tv_tensors import BoundingBoxes

from trex2_lightning.config import AugmentConfig, DataConfig
from trex2_lightning.data.images.image_files import ImageError, read_image
from trex2_lightning.data.images.resized_size import resized_size
from trex2_lightning.data.images.transforms import eval_transform, train_transform
from trex2_lightning.structures import PixelStatistics

RED = (200, 40, 80)
PLAIN = PixelStatistics((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def target(boxes: list[list[float]], labels: list[int], size: tuple[int, int]) -> dict[str, torch.Tensor]:
    values = torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4)
    return {"boxes": BoundingBoxes(values, format="XYXY", canvas_size=size), "labels": torch.tensor(labels)}


def levels(pixels: torch.Tensor) -> torch.Tensor:
    """From 0 to 255, of what was normalised with `PLAIN`."""
    return (pixels * 255).round()


@pytest.mark.parametrize(
    ("height", "width", "expected"),
    [
        (480, 640, (240, 320)),  # the shorter side becomes 240
        (120, 160, (240, 320)),  # smaller images grow by the same rule
        (240, 800, (120, 400)),  # the longer side stops at 400
        (800, 240, (400, 120)),
    ],
)
def test_eval_size(height: int, width: int, expected: tuple[int, int]) -> None:
    picture = Image.new("RGB", (width, height))
    pixels, out = eval_transform(DataConfig(size=240, max_size=400), PLAIN)(
        picture, target([[0, 0, 24, 48]], [2], (height, width))
    )
    assert pixels.shape == (3, *expected)
    assert pixels.dtype == torch.float32
    share = torch.tensor([0, 0, 24 / width, 48 / height])
    torch.testing.assert_close(out["boxes"][0] / torch.tensor([*expected[::-1], *expected[::-1]]), share)


@pytest.mark.parametrize("transform", [train_transform, eval_transform])
def test_pixels_are_normalised_with_the_statistics_of_each_channel(
    transform: Callable[[DataConfig, PixelStatistics], v2.Compose],
) -> None:
    statistics = PixelStatistics((0.5, 0.25, 0.125), (0.5, 2.0, 0.1))
    picture, nothing = Image.new("RGB", (8, 8), RED), target([], [], (8, 8))
    pixels, _ = transform(DataConfig(size=8, max_size=8), statistics)(picture, nothing)
    red, green, blue = (value / 255 for value in RED)
    expected = [(red - 0.5) / 0.5, (green - 0.25) / 2, (blue - 0.125) / 0.1]
    assert pixels[:, 3, 3].tolist() == pytest.approx(expected, abs=1e-6)


def test_flips_move_boxes_with_the_picture() -> None:
    picture = Image.new("RGB", (20, 10))
    picture.paste((255, 255, 255), (2, 1, 6, 4))
    config = DataConfig(size=10, max_size=20, augment=AugmentConfig(horizontal_flip=1.0, vertical_flip=1.0))
    pixels, out = train_transform(config, PLAIN)(picture, target([[2, 1, 6, 4]], [0], (10, 20)))
    assert out["boxes"].tolist() == [[14, 6, 18, 9]]
    rows, columns = torch.nonzero(levels(pixels)[0] == 255, as_tuple=True)
    assert (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1) == (14, 6, 18, 9)


def test_training_draws_among_the_sizes() -> None:
    torch.manual_seed(0)
    transform = train_transform(DataConfig(size=32, max_size=64, train_sizes=[16, 24, 32]), PLAIN)
    sizes = {min(transform(Image.new("RGB", (40, 30)), target([], [], (30, 40)))[0].shape[1:]) for _ in range(40)}
    assert sizes == {16, 24, 32}


def test_jitter_changes_colors_only_where_asked() -> None:
    torch.manual_seed(0)
    picture, nothing = Image.new("RGB", (8, 8), RED), target([], [], (8, 8))
    plain, _ = train_transform(DataConfig(size=8, max_size=8), PLAIN)(picture, nothing)
    jittered, _ = train_transform(DataConfig(size=8, max_size=8, augment=AugmentConfig(color_jitter=0.4)), PLAIN)(
        picture, nothing
    )
    assert levels(plain)[:, 0, 0].tolist() == list(RED)
    assert levels(jittered)[:, 0, 0].tolist() != list(RED)


def test_crops_keep_a_box_and_its_label_in_step() -> None:
    """Every object is a rectangle of its own grey value, which must be found in the box that carries its label."""
    torch.manual_seed(0)
    boxes = [[10, 10, 30, 40], [60, 20, 90, 50], [20, 70, 50, 95], [70, 70, 95, 95]]
    picture = Image.new("RGB", (100, 100))
    for value, box in enumerate(boxes, start=1):
        picture.paste((value * 50,) * 3, tuple(box))
    transform = train_transform(DataConfig(size=100, max_size=200, augment=AugmentConfig(crop=1.0)), PLAIN)
    counts = []
    for _ in range(25):
        pixels, out = transform(picture, target(boxes, [1, 2, 3, 4], (100, 100)))
        counts.append(len(out["labels"]))
        assert len(out["boxes"]) == len(out["labels"])
        for (left, top, right, bottom), label in zip(out["boxes"].tolist(), out["labels"].tolist(), strict=True):
            centre = levels(pixels)[0, int((top + bottom) / 2), int((left + right) / 2)]
            assert abs(int(centre) - 50 * label) <= 3
    assert min(counts) >= 1
    assert min(counts) < 4  # crops did happen


@pytest.mark.parametrize(("height", "width"), [(90, 100), (100, 100), (100, 90)])
def test_a_crop_keeps_the_orientation(height: int, width: int) -> None:
    torch.manual_seed(0)
    crop = train_transform(DataConfig(size=100, max_size=100, augment=AugmentConfig(crop=1.0)), PLAIN)
    picture, nearly_all = Image.new("RGB", (width, height)), [[1, 1, width - 1, height - 1]]
    sizes = {crop(picture, target(nearly_all, [1], (height, width)))[0].shape[1:] for _ in range(60)}
    assert all(h > w if height > width else h <= w for h, w in sizes if h != w)
    assert len(sizes) > 10


def test_an_image_without_boxes_can_be_cropped() -> None:
    transform = train_transform(DataConfig(size=32, max_size=64, augment=AugmentConfig(crop=1.0)), PLAIN)
    _, out = transform(Image.new("RGB", (40, 40)), target([], [], (40, 40)))
    assert out["boxes"].shape == (0, 4)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "CMYK", "P", "1", "I;16"])
def test_every_color_mode_becomes_rgb(tmp_path: Path, mode: str, recwarn: pytest.WarningsRecorder) -> None:
    grey = Image.fromarray(np.full((6, 8), 255, np.uint8))
    picture = Image.fromarray(np.full((6, 8), 65535, np.uint16)) if mode == "I;16" else grey.convert(mode)
    path = tmp_path / ("image.tif" if mode == "CMYK" else "image.png")
    picture.save(path)
    image = read_image(path, (6, 8))
    assert image.mode == "RGB"
    assert image.getpixel((4, 3)) == (255, 255, 255)
    assert not recwarn.list


def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0x8000, np.uint16)).save(tmp_path / "image.png")
    assert read_image(tmp_path / "image.png").getpixel((0, 0)) == (128, 128, 128)


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        (np.array([[0, 200]], np.uint16), [0, 200]),  # 8 bits in 16
        (np.array([[0, 1023]], np.uint16), [0, 255]),  # 10 bits in 16
        (np.array([[0, 4095]], np.uint16), [0, 255]),  # 12 bits in 16
        (np.array([[0, 16383]], np.uint16), [0, 255]),  # 14 bits in 16
        (np.array([[256, 2048]], np.int32), [16, 128]),
        (np.array([[0, 65535]], np.int32), [0, 255]),
        (np.array([[0, 2**20 - 1]], np.int32), [0, 255]),
        (np.array([[0, 0.5]], np.float32), [0, 128]),
        (np.array([[-3, 200]], np.float32), [0, 200]),
        (np.array([[np.nan, 1]], np.float32), [0, 255]),
        (np.array([[np.inf, 0]], np.float32), [0, 0]),
    ],
)
def test_any_depth_is_scaled_by_what_it_holds(tmp_path: Path, values: np.ndarray, shown: list[int]) -> None:
    Image.fromarray(values).save(tmp_path / "image.tif")
    image = read_image(tmp_path / "image.tif")
    assert [image.getpixel((x, 0)) for x in (0, 1)] == [(value,) * 3 for value in shown]


@pytest.mark.parametrize("kind", [np.uint16, np.float32])
def test_a_large_picture_is_scaled_in_parts_as_it_is_whole(
    tmp_path: Path, kind: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the brightest of all: floats of the whole took 2.6 GB for 100 million pixels."""
    values = np.arange(7 * 13).reshape(7, 13).astype(kind) * (700 if kind is np.uint16 else 0.01)
    Image.fromarray(values.astype(kind)).save(tmp_path / "image.tif")
    whole = np.asarray(read_image(tmp_path / "image.tif"))
    monkeypatch.setattr("trex2_lightning.data.images.image_files.BLOCK", 20)
    assert np.array_equal(np.asarray(read_image(tmp_path / "image.tif")), whole)
    assert whole.max() > 200


@pytest.mark.parametrize("size", [(2000, 2), (1, 3000)])
def test_a_very_long_picture_keeps_a_pixel_of_its_shorter_side(size: tuple[int, int]) -> None:
    picture = Image.new("RGB", size, RED)
    for transform in (
        eval_transform(DataConfig(size=32, max_size=64), PLAIN),
        train_transform(DataConfig(size=32, max_size=64, augment=AugmentConfig(horizontal_flip=0.0)), PLAIN),
    ):
        pixels, _ = transform(picture, target([[0, 0, 1, 1]], [0], size[::-1]))
        assert sorted(pixels.shape[-2:]) == [1, 64]


def test_palette_with_transparency_is_silent(tmp_path: Path, recwarn: pytest.WarningsRecorder) -> None:
    picture = Image.new("P", (4, 4))
    picture.putpalette([*RED] * 256)
    picture.save(tmp_path / "image.png", transparency=b"\x00\x10")
    assert read_image(tmp_path / "image.png").getpixel((0, 0)) == RED
    assert not recwarn.list


def rotated(path: Path) -> None:
    """Stored 8 wide and 6 high with a red left half; upright it is 6 wide and 8 high with a red top."""
    picture = Image.new("RGB", (8, 6))
    picture.paste((255, 0, 0), (0, 0, 4, 6))
    exif = Image.Exif()
    exif[0x0112] = 6
    picture.save(path, exif=exif)


def test_exif_turns_the_picture_upright(tmp_path: Path) -> None:
    rotated(tmp_path / "image.png")
    for image in (read_image(tmp_path / "image.png"), read_image(tmp_path / "image.png", (8, 6))):
        assert image.size == (6, 8)
        assert image.getpixel((5, 0)) == (255, 0, 0)
        assert image.getpixel((0, 7)) == (0, 0, 0)


def test_annotations_of_the_stored_picture_win_over_exif(tmp_path: Path) -> None:
    rotated(tmp_path / "image.png")
    image = read_image(tmp_path / "image.png", (6, 8))
    assert image.size == (8, 6)
    assert image.getpixel((0, 5)) == (255, 0, 0)


def test_another_size_than_annotated_is_an_error(tmp_path: Path) -> None:
    Image.new("RGB", (8, 6)).save(tmp_path / "image.png")
    with pytest.raises(ImageError, match=r"image\.png: is 8 x 6, but its annotations say 8 x 7"):
        read_image(tmp_path / "image.png", (7, 8))


@pytest.mark.parametrize("kind", ["jpg", "png"])
@pytest.mark.parametrize("share", [0.0, 0.02, 0.5])
def test_truncated_files_are_named(tmp_path: Path, kind: str, share: float) -> None:
    path = tmp_path / f"image.{kind}"
    Image.effect_noise((64, 64), 80).save(path)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ImageError, match=rf"image\.{kind}: cannot be read \(.+\)$"):
        read_image(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such image file"):
        read_image(tmp_path / "image.png")


def test_sizes_are_those_of_the_published_detector_to_the_pixel() -> None:
    reference = pytest.importorskip("transformers.models.grounding_dino.image_processing_grounding_dino")
    assert resized_size(385, 640, 800, 1333) == (800, 1329)  # torchvision: 799, by a rounding error
    assert resized_size(640, 130, 800, 1333) == (1333, 271)  # 270.8
    assert resized_size(3, 4000, 80, 133) == (1, 133)
    random_sides = np.random.default_rng(0).integers(60, 1300, (2000, 2)).tolist()
    for height, width in random_sides:
        expected = reference.get_size_with_aspect_ratio((height, width), 800, 1333)
        assert expected in {resized_size(height, width, 800, 1333), (height, width)}
