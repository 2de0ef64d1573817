"""``demo`` on videos: frame by frame, side by side, and one sentence for what is none."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from compress.cli.filtering import DeployedFilter
from compress.cli.video import _turns, filter_video, is_video
from compress.errors import DataError, MissingExtra, StorageError

av = pytest.importorskip("av")


@pytest.fixture
def net(tmp_path):
    """A filter that makes images half as bright."""
    ports = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 3, 32, 32])
        for name in ("image", "made")
    ]
    half = helper.make_tensor("half", TensorProto.FLOAT, [], [0.5])
    node = helper.make_node("Mul", ["image", "half"], ["made"])
    graph = helper.make_graph([node], "half", ports[:1], ports[1:], [half])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, tmp_path / "half.onnx")
    return DeployedFilter(tmp_path / "half.onnx")


def written(path, frames=12, rate=10, codec="mpeg4"):
    """A video of 96 by 64 pixels: bright in its middle, black beside it."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:, 16:80] = 200
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(frames):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode(None))
    return path


def test_input_and_result_are_side_by_side_at_the_videos_rate(net, tmp_path):
    clip, out = written(tmp_path / "clip.avi"), tmp_path / "made" / "clip.mp4"
    done = filter_video(net, clip, {}, out, 300)
    assert (done.frames, done.of, len(done.sheet)) == (12, 12, 4)
    assert all(len(each) == 12 for each in (done.steps.before, done.steps.net, done.steps.after))
    assert [path.name for path in out.parent.iterdir()] == ["clip.mp4"]
    with av.open(str(out)) as container:
        assert container.streams.video[0].average_rate == 10
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert (len(frames), frames[0].shape) == (12, (32, 64, 3))
    for frame in frames[0], frames[-1]:
        assert abs(frame[4:28, 4:28].mean() - 200) < 6  # the middle: nothing of the black sides
        assert abs(frame[4:28, 36:60].mean() - 100) < 6


def test_no_more_frames_than_asked_for_are_read(net, tmp_path):
    done = filter_video(net, written(tmp_path / "clip.mkv"), {}, tmp_path / "made.mp4", 5)
    assert (done.frames, done.of) == (5, 12)


@pytest.mark.parametrize(
    ("name", "content", "problem"),
    [
        ("none.mp4", None, "there is no such file"),
        ("empty.mp4", b"", "it cannot be read as a video"),
        ("text.mp4", b"no video" * 99, "it cannot be read as a video"),
        ("list.mp4", b"#EXTM3U\n#EXTINF:1,\nclip.avi\n#EXT-X-ENDLIST\n", "cannot be read as a"),
        ("concat.mkv", b"ffconcat version 1.0\nfile clip.avi\n", "it cannot be read as a video"),
        ("cut.mp4", 0.6, "it cannot be read as a video"),
    ],
)
def test_what_is_no_video_is_refused_in_one_sentence(name, content, problem, net, tmp_path):
    written(tmp_path / "clip.avi")
    if isinstance(content, float):
        whole = written(tmp_path / "whole.mp4").read_bytes()
        content = whole[: int(content * len(whole))]
    if content is not None:
        (tmp_path / name).write_bytes(content)
    out = tmp_path / "out" / "made.mp4"
    with pytest.raises(DataError, match=problem) as error:
        filter_video(net, tmp_path / name, {}, out, 300)
    assert str(error.value).count("\n") == 0
    assert not out.parent.exists() or not list(out.parent.iterdir())


def test_a_video_that_is_cut_short_ends_where_it_does(net, tmp_path):
    whole = written(tmp_path / "clip.mkv", frames=40).read_bytes()
    (tmp_path / "cut.mkv").write_bytes(whole[: len(whole) // 2])
    done = filter_video(net, tmp_path / "cut.mkv", {}, tmp_path / "made.mp4", 300)
    assert 0 < done.frames < 30
    assert done.of == 40


def test_frames_that_are_damaged_are_an_error_that_says_where(net, tmp_path, monkeypatch):
    clip = written(tmp_path / "clip.avi")

    def fails_third(frame):
        fails_third.calls += 1
        if fails_third.calls == 3:
            raise av.error.InvalidDataError(1, "Invalid data found")
        return 0

    fails_third.calls = 0
    monkeypatch.setattr("compress.cli.video._turns", fails_third)
    with pytest.raises(DataError, match=r"cannot be decoded after 2 frames \(Invalid data found\)"):
        filter_video(net, clip, {}, tmp_path / "made.mp4", 300)
    assert not (tmp_path / "made.mp4").exists()


def test_a_sound_has_no_video_in_it(net, tmp_path):
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), "s16", "mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    with pytest.raises(DataError, match="it has no video in it"):
        filter_video(net, path, {}, tmp_path / "made.mp4", 300)


def test_where_nothing_can_be_written_is_said(net, tmp_path):
    clip = written(tmp_path / "clip.avi")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="could not be written"):
        filter_video(net, clip, {}, tmp_path / "file" / "made.mp4", 300)


def test_without_pyav_the_extra_is_named(net, tmp_path, monkeypatch):
    clip = written(tmp_path / "clip.avi")
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match=r"pip install 'compresskit\[video\]'"):
        filter_video(net, clip, {}, tmp_path / "made.mp4", 300)


def test_videos_are_told_by_their_names_and_turned_as_phones_say():
    assert is_video(SimpleNamespace(suffix=".MP4"))
    assert not is_video(SimpleNamespace(suffix=".gif"))
    assert [_turns(SimpleNamespace(rotation=r)) for r in (0, 90, -90, 180, -180)] == [0, 1, 3, 2, 2]
    assert _turns(SimpleNamespace()) == 0
