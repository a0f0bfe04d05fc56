"""Memory and time of localizing segments in one long video, a real one that is looped, and of a second head on it.

    PYTHONPATH=. python bench/long_video.py VIDEO [HOURS]

The packets of the video are written again and again, for two hours by default. A localizer is trained on the video
itself and finds segments in the long one, window by window: 16 frames at 15 frames per second.
"""

from __future__ import annotations

import json
import sys
import tempfile
from fractions import Fraction
from pathlib import Path

import av

from bench.memory import watch
from evalkit.results import run_folder


def loop(source: Path, target: Path, seconds: float) -> float:
    """Writes a video's packets as often as it takes to last so long; its seconds."""
    with av.open(str(source)) as container, av.open(str(target), "w") as out:
        stream = container.streams.video[0]
        packets = [packet for packet in container.demux(stream) if packet.size]
        tick = stream.time_base or Fraction(1)
        length = max((p.pts or 0) + (p.duration or 0) for p in packets) - min(p.pts or 0 for p in packets)
        copies = int(seconds / (length * tick)) + 1
        copy = out.add_stream_from_template(stream)
        for k in range(copies):
            for packet in packets:
                again = av.Packet(bytes(packet))
                again.pts, again.dts = (packet.pts or 0) + k * length, (packet.dts or 0) + k * length
                again.duration, again.time_base = packet.duration, tick
                again.is_keyframe, again.stream = packet.is_keyframe, copy
                out.mux(again)
        return float(copies * length * tick)


def main(source: Path, hours: float) -> None:
    """Prints the table."""
    with tempfile.TemporaryDirectory() as place:
        root = Path(place)
        short = loop(source, root / "short.mp4", 1.0)
        long = loop(source, root / "long.mp4", 3600 * hours)
        annotations = [{"segment": [0.2 * short, 0.6 * short], "label": "walk"}]
        other = [{"segment": [0.5 * short, 0.9 * short], "label": "stand"}]
        database = {
            "short": {"subset": "training", "duration": short, "annotations": annotations},
            "long": {"subset": "validation", "duration": long, "annotations": [*annotations, *other]},
        }
        (root / "other.mp4").write_bytes((root / "short.mp4").read_bytes())
        database["other"] = {"subset": "training", "duration": short, "annotations": other}
        (root / "segments.json").write_text(json.dumps({"database": database}))
        words = ["task=tal", f"data.root={root / 'segments.json'}", "ckpt=demo", "clip.frames=16", "canary=false"]
        command = [sys.executable, "-m", "evalkit", "run", *words, "adapter.head=actionformer", "adapter.epochs=1"]
        print(f"{long:,.0f} s, {(root / 'long.mp4').stat().st_size / 1e6:,.0f} MB of {source.name}\n")
        print("| head | windows encoded | found stored | seconds | MB at most |\n|---|---|---|---|---|")
        for name, more in (("ActionFormer, 192 steps", []), ("the same, 96 steps", ["adapter.length=96"])):
            _, most, seconds = watch([*command, *more, f"out={place}/{len(more)}"], root / "cache")
            (run,) = run_folder.runs(root / str(len(more)))
            cost = run_folder.load(run)["cost"]
            counts = f"{cost['encoder_forwards']:,} | {cost['cache_hits']:,}"
            print(f"| {name} | {counts} | {seconds:.0f} | {most:,.0f} |", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) > 2 else 2.0)
