"""How often a damaged byte of a video is noticed: one random byte of a packet is replaced, and all frames are decoded.

PYTHONPATH=. python bench/flips.py [FLIPS]

FFmpeg cannot notice damage if a file decodes to other pixels without an error: HEVC, VP8, VP9 and AV1 contain no check
of their data, and to their arithmetic decoders almost any bytes are a picture.
"""

import random
import sys
import tempfile
from pathlib import Path

import av
import numpy as np

from evalkit.video.decode import open_video
from evalkit.video.timeline import DecodeError

FLIPS = int(sys.argv[1]) if len(sys.argv) > 1 else 300
FILES, FRAMES, WIDTH, HEIGHT = 6, 24, 160, 96
CODECS = {
    "h264": ("libx264", "mp4", {}),
    "hevc": ("libx265", "mp4", {"x265-params": "log-level=none"}),
    "mpeg4": ("mpeg4", "mp4", {}),
    "vp8": ("libvpx", "webm", {"deadline": "realtime"}),
    "vp9": ("libvpx-vp9", "webm", {"deadline": "realtime"}),
    "av1": ("libsvtav1", "mp4", {"preset": "12", "svtav1-params": "enable-stat-report=0"}),
}


def film(path: Path, encoder: str, options: dict[str, str], seed: int) -> None:
    """Squares that move over noise, which costs bits everywhere."""
    draw = np.random.default_rng(seed)
    ground = draw.integers(0, 255, (HEIGHT // 4, WIDTH // 4, 3), np.uint8).repeat(4, 0).repeat(4, 1)
    places, steps = draw.integers(0, 60, (5, 2)), draw.integers(-3, 4, (5, 2))
    with av.open(str(path), "w") as container:
        stream = container.add_stream(encoder, rate=12, options={"g": "12", **options})
        stream.width, stream.height, stream.pix_fmt, stream.bit_rate = WIDTH, HEIGHT, "yuv420p", 400_000
        for number in range(FRAMES):
            picture = ground.copy()
            for color, (y, x) in enumerate((places + number * steps) % (HEIGHT - 20, WIDTH - 20)):
                picture[y : y + 20, x : x + 20] = 40 * color + 30
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


def spans(path: Path) -> list[tuple[int, int]]:
    """Where each packet lies in the file."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size and packet.pos is not None]
        return [(packet.pos, packet.size) for packet in packets]


def decode(path: Path) -> np.ndarray:
    """All frames."""
    video = open_video(path)
    return video.read(range(len(video.times)))


def main() -> None:
    """Prints a row per codec."""
    print(f"{FLIPS} flips in {FILES} files of {FRAMES} frames, {WIDTH} x {HEIGHT}; PyAV {av.__version__}\n")
    print("| codec | fails, with its reason | other pixels and no word | the same pixels |\n|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for codec, (encoder, ending, options) in CODECS.items():
            counts, draw = {"fails": 0, "other": 0, "same": 0}, random.Random(0)
            for number in range(FILES):
                path, damaged = Path(folder, f"{codec}{number}.{ending}"), Path(folder, f"damaged.{ending}")
                film(path, encoder, options, number)
                clean, content, packets = decode(path), path.read_bytes(), spans(path)
                for _ in range(FLIPS // FILES):
                    start, size = draw.choices(packets, [size for _, size in packets])[0]
                    place = start + draw.randrange(size)
                    byte = bytes([content[place] ^ draw.randint(1, 255)])
                    damaged.write_bytes(content[:place] + byte + content[place + 1 :])
                    try:
                        pixels = decode(damaged)
                    except DecodeError:
                        counts["fails"] += 1
                    else:
                        counts["same" if np.array_equal(pixels, clean) else "other"] += 1
            print("|", codec, "|", " | ".join(f"{100 * n / sum(counts.values()):.1f} %" for n in counts.values()), "|")


if __name__ == "__main__":
    main()
