"""Frames of a video as pictures; PyAV writes the video too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from trex2_lightning.data.images.image_files import read_image
from trex2_lightning.errors import InputError
from trex2_lightning.inference.labelling.sources import find_pictures
from trex2_lightning.inference.labelling.video import is_video, write_frames

FRAMES = 7


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Frame n is grey, 30 n bright."""
    av = pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(FRAMES):
            picture = np.full((48, 64, 3), 30 * number, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_every_third_frame(video: Path, tmp_path: Path) -> None:
    numbers: list[int] = []
    write_frames(video, tmp_path / "frames", 3, numbers.append)
    source = find_pictures(str(tmp_path / "frames"))
    assert source.names == ("clip_000000.jpg", "clip_000003.jpg", "clip_000006.jpg")
    assert numbers == [0, 3, 6]
    pictures = [read_image(source.root / name) for name in source.names]
    assert [picture.size for picture in pictures] == [(64, 48)] * 3
    brightness = [np.asarray(picture).mean() for picture in pictures]
    assert brightness == pytest.approx([0, 90, 180], abs=8)


def test_what_is_there_stays_and_a_half_is_written_again(video: Path, tmp_path: Path) -> None:
    folder = tmp_path / "frames"
    folder.mkdir()
    (folder / "clip_000000.jpg").write_text("corrected")
    (folder / "clip_000001.part").write_text("half")
    write_frames(video, folder, 1, lambda _: None)
    assert (folder / "clip_000000.jpg").read_text() == "corrected"
    assert read_image(folder / "clip_000001.jpg").size == (64, 48)
    assert len(list(folder.iterdir())) == FRAMES


def test_a_video_that_breaks_off_gives_what_it_has(
    video: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "x.mp4").write_text("no video")
    with pytest.raises(InputError, match=r"x\.mp4: cannot be decoded .*; give a video that plays"):
        write_frames(tmp_path / "x.mp4", tmp_path / "frames", 1, lambda _: None)


def test_a_video_is_told_by_its_name(video: Path) -> None:
    assert is_video(video)
    assert not is_video(video.parent)
    assert not is_video(Path("gone.mp4"))


def test_a_video_of_large_pictures_is_refused_by_its_head(
    video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TREX2_MAX_PIXELS", str(64 * 48 - 1))
    with pytest.raises(InputError, match=r"clip\.mp4: has 64 x 48 pixels, and TREX2_MAX_PIXELS=3071 are the most"):
        write_frames(video, tmp_path / "frames", 1, lambda _: None)
    assert not any((tmp_path / "frames").iterdir())


def test_a_list_of_other_files_is_no_video(video: Path, tmp_path: Path) -> None:
    """FFmpeg knows playlists and takes what they name, whatever they are called."""
    lists = {
        "hls.mp4": f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\n{video}\n#EXT-X-ENDLIST\n",
        "concat.mp4": f"ffconcat version 1.0\nfile {video.name}\n",
    }
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError, match="cannot be decoded"):
            write_frames(tmp_path / name, tmp_path / "frames", 1, lambda _: None)
