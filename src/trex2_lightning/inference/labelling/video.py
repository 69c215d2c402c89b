"""The frames of a video as pictures, which every tool can show and correct labels on; decoded by PyAV."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from trex2_lightning.data.images.archives import most_pixels, too_large
from trex2_lightning.errors import InputError, reason_of

VIDEOS = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".webm")
# Containers alone: FFmpeg also knows playlists, which name further files and addresses, whatever they are called.
OPENED_AS = {"format_whitelist": "avi,mov,mp4,matroska,webm,mpeg,mpegts,m4v", "protocol_whitelist": "file"}
QUALITY = 95  # of JPEG

log = logging.getLogger(__name__)


def is_video(path: Path) -> bool:
    """Whether it is a file whose name ends as those of videos do."""
    return path.suffix.lower() in VIDEOS and path.is_file()


def write_frames(video: Path, folder: Path, every: int, written: Callable[[int], None]) -> None:
    """Write each `every`th frame, the first among them, as `NAME_000123.jpg`; what is there already stays.

    Args:
        video: any that FFmpeg reads; of its frames those behind a broken one are lost, which is logged.
        folder: to write to.
        every: 1: all frames.
        written: told the number of each frame that is there.

    Raises:
        InputError: PyAV is not installed, or the file has no frame that can be decoded.
    """
    try:
        import av
    except ImportError as error:
        raise InputError(f"{video}: a video needs PyAV: pip install 'trex2_lightning[video]'") from error
    folder.mkdir(parents=True, exist_ok=True)
    found = 0
    try:
        with av.open(str(video), options=OPENED_AS) as container:
            context = container.streams.video[0].codec_context
            if wrong := too_large(context.width, context.height):
                raise InputError(f"{video}: {wrong}")
            context.options = {"max_pixels": str(2 * most_pixels())}  # of later frames too, with FFmpeg's margins
            for number, frame in enumerate(container.decode(video=0)):
                if number % every == 0:
                    _write(frame, folder / f"{video.stem}_{number:06}.jpg")
                    found += 1
                    written(number)
    except (av.FFmpegError, IndexError, OSError) as error:
        if not found:
            raise InputError(f"{video}: cannot be decoded ({reason_of(error)}); give a video that plays") from error
        log.warning("%s: broken behind frame %d (%s)", video, (found - 1) * every, reason_of(error))


def _write(frame: Any, file: Path) -> None:
    """Turned as players show it; a kill leaves no half of a file under its name."""
    if not file.exists():
        part = file.with_suffix(".part")
        frame.to_image().rotate(frame.rotation, expand=True).save(part, "JPEG", quality=QUALITY)
        part.replace(file)
