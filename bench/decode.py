"""The cost of reading a clip, from the file to RGB frames, compared with PyAV, torchcodec and decord.

    PYTHONPATH=. python bench/decode.py [threads of the others] [folder of videos]

Costs are processor time, which is what a pool with one process per core has to spend; each library uses one thread by
default. Frames are passed on as they come, by the libraries in batches of 8 MB. The other libraries get the frames'
numbers and times for free, while evalkit reads them from the file. Plain PyAV seeks if a cut, a place where decoding
can start, lies between two frames, and otherwise reads on. All variants take turns, and the least of several rounds
counts. If a library reads other frames than sequential decoding gives, the mean difference in 0..255 is shown and its
time does not count.
"""

from __future__ import annotations

import functools
import importlib.util
import math
import sys
import time
from bisect import bisect_right
from collections.abc import Callable, Iterator
from pathlib import Path

import av
import numpy as np
import torch
from numpy.typing import NDArray

from evalkit.video.decode import BATCH_BYTES, open_video
from evalkit.video.media import open_container
from evalkit.video.timeline import Timeline, timeline

VIDEOS = Path(__file__).parents[2] / "shared" / "data" / "videos"
FILES = {
    "h264 1024x1024, 60 s, a cut every 10 s": "sleap/tests__data__tracks__clip.mp4",
    "h264 768x432, 139 s, a cut every 1 s": "intel-sample-videos/one-by-one-person-detection.mp4",
    "h264 640x360, 40 s, a cut every 8 s": "intel-sample-videos/bottle-detection.mp4",
    "h264 320x180, 259 s, a cut every 25 s": "derived/long_259s_10fps.mp4",
    "h264 256x144, 139 s, one cut": "derived/long_139s_1fps_onekeyframe.mp4",
    "h264 640x480, 3 s, one cut": "intel-sample-videos/asl_gestures__again.mkv",
    "hevc 1280x720, 2 s, one cut": "torchcodec/testsrc2_h265.mp4",
    "vp9 1280x720, 30 s, a cut every 3 s": "moviepy/big_buck_bunny_0_30.webm",
    "av1 640x360, 5 s, one cut": "torchcodec/av1_video.mkv",
    "mpeg2 320x180, 3 s, in a .ts": "derived/mpeg2.ts",
}
FRAMES = (8, 16, 180)
# Rounds, fewer where one takes long; seconds.
ROUNDS, LONG = 5, 1.0

Pixels = NDArray[np.uint8]
Way = Callable[[Path, Timeline, list[int], int], Iterator[Pixels]]


def by_hand(path: Path, line: Timeline, indices: list[int], threads: int) -> Iterator[Pixels]:
    """Each frame by PyAV alone."""
    cuts, at = [] if line.doubt else list(line.cuts), line.pts[0]
    with open_container(path) as container:
        stream = next(stream for stream in container.streams.video if stream.index == line.stream)
        stream.codec_context.thread_count = threads
        frames = container.decode(stream)
        for pts in (line.pts[index] for index in indices):
            if bisect_right(cuts, pts) > bisect_right(cuts, at):
                container.seek(pts, stream=stream)
                frames = container.decode(stream)
            frame = next(frame for frame in frames if frame.pts is not None and frame.pts >= pts)
            yield frame.to_ndarray(format="rgb24")[None]
            at = pts


def by_torchcodec(path: Path, line: Timeline, indices: list[int], threads: int) -> Iterator[Pixels]:
    """Batches of frames by torchcodec alone."""
    from torchcodec.decoders import VideoDecoder

    reader = VideoDecoder(path, stream_index=line.stream, dimension_order="NHWC", num_ffmpeg_threads=threads)
    for batch in batches(line, indices):
        yield reader.get_frames_at(batch).data.numpy()


def by_decord(path: Path, line: Timeline, indices: list[int], threads: int) -> Iterator[Pixels]:
    """Batches of frames by decord alone."""
    import decord

    decord.logging.set_level(decord.logging.QUIET)
    reader = decord.VideoReader(str(path), num_threads=threads)
    for batch in batches(line, indices):
        yield reader.get_batch(batch).asnumpy()


def ours(path: Path, line: Timeline, indices: list[int], threads: int) -> Iterator[Pixels]:
    """Each frame by evalkit, which reads the timeline, too."""
    for _, frame in open_video(path).frames(indices):
        yield frame[None]


# torchcodec before decord: after it, it crashes on AV1
WAYS: dict[str, tuple[str, Way]] = {
    "PyAV": ("av", by_hand),
    "torchcodec": ("torchcodec", by_torchcodec),
    "decord": ("decord", by_decord),
    "ours": ("evalkit", ours),
}


def batches(line: Timeline, indices: list[int]) -> Iterator[list[int]]:
    """The indices in batches of 8 MB of frames."""
    size = max(1, BATCH_BYTES // (3 * math.prod(line.size)))
    return (indices[at : at + size] for at in range(0, len(indices), size))


def in_sequence(path: Path, line: Timeline, indices: list[int]) -> list[Pixels]:
    """The frames from decoding the whole file, to compare with."""
    wanted = {line.pts[index] for index in indices}
    with open_container(path) as container:
        stream = next(stream for stream in container.streams.video if stream.index == line.stream)
        return [frame.to_ndarray(format="rgb24") for frame in container.decode(stream) if frame.pts in wanted]


def difference(read: Callable[[], Iterator[Pixels]], expected: list[Pixels]) -> float:
    """Mean difference of the frames, 0..255; infinite where they do not come."""
    try:
        found = (frame.astype(np.int16) for frames in read() for frame in frames)
        return float(np.mean([np.abs(frame - right).mean() for frame, right in zip(found, expected, strict=True)]))
    except Exception:  # each library has its own
        return math.inf


def spent(read: Callable[[], Iterator[Pixels]]) -> float:
    """Seconds of processor time."""
    started = time.process_time()
    for _ in read():
        pass
    return time.process_time() - started


def seek_in_packets(path: Path, line: Timeline) -> float:
    """How many packets can be passed over in the time of one seek."""
    seeks, passes = [], []
    with open_container(path) as container:
        stream = next(stream for stream in container.streams.video if stream.index == line.stream)
        for cut in line.cuts:
            started = time.process_time()
            container.seek(cut, stream=stream)
            packets = container.demux(stream)
            next(packets)
            sought = time.process_time()
            count = sum(1 for _ in packets)
            seeks.append(sought - started)
            passes.append((time.process_time() - sought) / max(1, count))
    return min(seeks) / min(passes)


def main(threads: str = "1", folder: str = str(VIDEOS)) -> None:
    """Prints the table."""
    here = {name: way for name, (module, way) in WAYS.items() if importlib.util.find_spec(module)}
    print(f"| ms of processor time, {threads} thread(s) | frames | {' | '.join(here)} | ours / best | equal |")
    print("|---|---|" + "---|" * (len(here) + 2))
    worst = 0.0
    for what, name in FILES.items():
        path = Path(folder) / name
        line = timeline(path)
        for count in FRAMES:
            indices = sorted({k * len(line.pts) // count for k in range(count)})
            expected = in_sequence(path, line, indices)
            reads = {name: functools.partial(way, path, line, indices, int(threads)) for name, way in here.items()}
            off = {name: difference(read, expected) for name, read in reads.items()}
            best = {name: math.inf for name in reads if not off[name]}
            for turn in range(ROUNDS):
                for name in best:
                    if not turn or turn * best[name] < LONG:
                        best[name] = min(best[name], spent(reads[name]))
            ratio = best["ours"] / min(best[name] for name in best if name != "ours")
            worst = max(worst, ratio)
            cells = " | ".join(f"{1000 * best[name]:.0f}" if name in best else "-" for name in here)
            unequal = ", ".join(f"{name} {mean:.2f}" for name, mean in off.items() if mean)
            print(f"| {what} | {len(indices)} | {cells} | {ratio:.2f} | {unequal or 'yes'} |", flush=True)
    seeks = [seek_in_packets(path, timeline(path)) for path in (Path(folder) / name for name in FILES.values())]
    print(f"\nA seek costs as much as passing over {min(seeks):.0f} to {max(seeks):.0f} packets (SEEK_PACKETS).")
    print(f"Worst of ours / best: {worst:.2f}, wanted <= 1.10. PyAV {av.__version__}.")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main(*sys.argv[1:])
