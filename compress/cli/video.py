"""``compresskit demo RUN VIDEO``: an image filter on a video, frame by frame, beside what came in.

The one file that knows PyAV (the extra ``video``). No more than a frame of the video is in memory,
and what the encoder holds back of the small ones that are written.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from compress.cli.filtering import DeployedFilter, Steps, as_bytes, as_input
from compress.effects.reading import part_at_size
from compress.errors import DataError, MissingExtra, StorageError
from compress.io.atomic import part_of
from compress.io.files import named, regular_file

__all__ = ["VideoDone", "filter_video", "is_video"]

Array = np.ndarray[Any, Any]

_SUFFIXES = frozenset(
    {
        *(".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts"),
        *(".m2ts", ".wmv", ".flv", ".3gp", ".ogv", ".y4m"),
    }
)
# What a stranger's file may be read as: no list of other files or addresses to open.
_FORMATS = "mov,matroska,avi,mpeg,mpegts,mpegvideo,asf,flv,ogg,yuv4mpegpipe"
_MOST_PIXELS = 64 << 20
# The first that the installed library has: every player has the one, and FFmpeg itself the other.
_CODECS = ("libx264", "mpeg4")
_FASTEST = 120
_RATE = 25  # of a video that does not say its own
_SHEET_FRAMES = 4


@dataclass(frozen=True)
class VideoDone:
    """What was made of a video.

    Args:
        frames: how many.
        steps: the time that each took.
        of: as the file says, or as its length does; 0 where neither does.
        codec: of the video that was written.
        sheet: a few frames, each with what was made of it.
    """

    frames: int
    steps: Steps
    of: int
    codec: str
    sheet: list[list[Array]]


def is_video(path: Path) -> bool:
    """Whether a file has the name of a video."""
    return path.suffix.lower() in _SUFFIXES


def filter_video(
    net: DeployedFilter, path: Path, controls: Mapping[str, float], out: Path, most: int
) -> VideoDone:
    """Run the filter on the middle of each frame, and write what came in and out side by side.

    Args:
        net: the filter.
        path: of the video.
        controls: by name.
        out: the file to write, whose name ends in ``.mp4``; it is there whole or not at all.
        most: frames at most, from the first.

    Raises:
        MissingExtra: PyAV is not installed.
        DataError: the file is no video, or cannot be decoded to its end.
        StorageError: the disk refused.
    """
    regular_file(path, DataError, where="demo: ")
    source = _Source(path)
    beside = part_of(out)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        done = _written(net, source, controls, beside, most)
        beside.replace(out)
    except OSError as error:
        raise _not_written(out, error) from error
    finally:
        with suppress(OSError):
            beside.unlink()
    return done


def _written(
    net: DeployedFilter, source: _Source, controls: Mapping[str, float], place: Path, most: int
) -> VideoDone:
    steps, count = Steps(), 0
    sheet: list[list[Array]] = []
    every = max(1, min(most, source.frames or most) // _SHEET_FRAMES)
    with _Sink(place, net.size, source.rate) as sink, closing(source.squares(net.size)) as frames:
        begin = time.perf_counter()
        for shown in frames:
            image = as_input(shown)
            decoded = time.perf_counter()
            made = net(image, controls)
            filtered = time.perf_counter()
            both = [shown, as_bytes(made)]
            sink.add(np.concatenate(both, axis=1))
            if count % every == 0 and len(sheet) < _SHEET_FRAMES:
                sheet.append(both)
            count += 1
            end = time.perf_counter()
            steps.add(decoded - begin, filtered - decoded, end - filtered)
            if count == most:
                break
            begin = time.perf_counter()
    return VideoDone(count, steps, source.frames, sink.codec, sheet)


class _Source:
    """A video to read.

    Args:
        path: of the file.

    Raises:
        MissingExtra: PyAV is not installed.
    """

    def __init__(self, path: Path) -> None:
        try:
            import av
        except ImportError as error:
            raise MissingExtra(
                f"{named(path)}: videos are read by PyAV, which is not installed: "
                "pip install 'compresskit[video]'."
            ) from error
        self._av, self._path = av, path
        self.frames, self.rate = 0, Fraction(_RATE)
        with self._opened() as container:
            stream = container.streams.video[0]
            if stream.average_rate is not None and 0 < stream.average_rate <= _FASTEST:
                self.rate = Fraction(stream.average_rate)
            length_s = (container.duration or 0) / self._av.time_base
            self.frames = int(stream.frames) or round(length_s * self.rate)

    def squares(self, size: int) -> Generator[Array, None, None]:
        """The middle of each frame, upright, ``(size, size, 3)`` in bytes."""
        count = 0
        with self._opened() as container:
            try:
                for frame in container.decode(video=0):
                    if frame.width * frame.height > _MOST_PIXELS:
                        raise self._refusal(f"has frames of {frame.width} by {frame.height} pixels")
                    yield _middle(frame.to_ndarray(format="rgb24"), _turns(frame), size)
                    count += 1
            except (self._av.error.FFmpegError, ValueError) as error:
                raise self._refusal(
                    f"cannot be decoded after {count} frames ({_words(error)})"
                ) from error
        if count == 0:
            raise self._refusal("has no frame that can be decoded")

    def _opened(self) -> Any:
        try:
            container = self._av.open(
                f"file:{self._path}",
                options={"protocol_whitelist": "file", "format_whitelist": _FORMATS},
                metadata_errors="replace",
            )
        except (self._av.error.FFmpegError, ValueError) as error:
            raise self._refusal(f"cannot be read as a video ({_words(error)})") from error
        if not container.streams.video:
            container.close()
            raise self._refusal("has no video in it")
        return container

    def _refusal(self, problem: str) -> DataError:
        return DataError(f"{named(self._path)}: it {problem}; repair it, or give another.")


class _Sink:
    """A video to write: frames twice as wide as high.

    Args:
        place: the file.
        size: height of the frames, in pixels.
        rate: frames a second.
    """

    def __init__(self, place: Path, size: int, rate: Fraction) -> None:
        import av

        self._av = av
        self.codec: Any = next(name for name in _CODECS if name in av.codecs_available)
        self._place = place
        # Half of the resolution for colors, which every player takes, wants even numbers.
        self._height = size - size % 2
        with self._told():
            self._container: Any = av.open(f"file:{place}", "w", format="mp4")
            stream: Any = self._container.add_stream(self.codec, rate=rate)
            stream.width, stream.height = 2 * size, self._height
            stream.pix_fmt, stream.bit_rate = "yuv420p", 40 * size * size
            self._stream = stream

    def __enter__(self) -> _Sink:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:  # what is there of the file is removed
            with suppress(self._av.error.FFmpegError):
                self._container.close()
            return
        with self._told():
            self._container.mux(self._stream.encode(None))
            self._container.close()

    def add(self, pixels: Array) -> None:
        """A frame ``(size, 2 * size, 3)`` in bytes."""
        frame = self._av.VideoFrame.from_ndarray(
            np.ascontiguousarray(pixels[: self._height]), format="rgb24"
        )
        with self._told():
            self._container.mux(self._stream.encode(frame))

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except self._av.error.FFmpegError as error:
            raise _not_written(self._place, error) from error


def _middle(pixels: Array, turns: int, size: int) -> Array:
    upright = np.ascontiguousarray(np.rot90(pixels, turns))
    height, width = upright.shape[:2]
    side = min(height, width)
    return part_at_size(upright, (width - side) // 2, (height - side) // 2, side, size)


def _turns(frame: Any) -> int:
    """Quarters of a turn to the left that make a frame upright, as phones note them."""
    return round(getattr(frame, "rotation", 0) / 90) % 4


def _not_written(place: Path, error: Exception) -> StorageError:
    return StorageError(
        f"{named(place)}: could not be written ({_words(error)}); free space, or give another "
        "--out."
    )


def _words(error: Exception) -> str:
    return named(getattr(error, "strerror", None) or str(error))
