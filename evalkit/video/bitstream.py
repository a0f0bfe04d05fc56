"""What the first bits of a packet say about its frame; containers' flags may be wrong, and nothing is decoded.

Only codecs are listed whose bits say for certain that decoding starts afresh. Of any other, and where the bits say
nothing, every frame may depend on all before it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from av.video.stream import VideoStream

# A packed MPEG-4 stream fills the place of a frame that came with an earlier packet by a P-VOP of at most this size.
PLACEHOLDER_BYTES = 19
H264_IDR, H264_SETS = 5, (7, 8)
# IDR and CRA pictures, without and with leading pictures; of the latter, the timeline sees that packets reach back.
HEVC_IRAP, HEVC_SETS = range(16, 22), (32, 33, 34)
VVC_IDR = (7, 8)
AV1_SEQUENCE, AV1_FRAMES = 1, (3, 6)


class Bitstream:
    """Parses packets of one video stream; created once per stream, because PyAV copies a stream's properties."""

    def __init__(self, stream: VideoStream) -> None:
        context = stream.codec_context
        self.codec = context.codec.canonical_name
        # Whether packets of this codec may show no frame, or several, and say so.
        self.counts_frames = self.codec in ("vp8", "vp9", "av1", "mpeg4")
        # Whether a packet that shows nothing may stand for a frame that came with another packet.
        self.is_packed = self.codec == "mpeg4"
        self._intra_only = context.codec.intra_only
        extra = context.extradata or b""
        self._length_bytes = 0  # of a NAL unit's length; 0 means start codes
        if self.codec == "h264" and len(extra) > 4 and extra[0] == 1:
            self._length_bytes = (extra[4] & 3) + 1
        elif self.codec in ("hevc", "vvc") and len(extra) > 22 and extra[:3] not in (b"\0\0\0", b"\0\0\1"):
            self._length_bytes = (extra[21] & 3) + 1 if self.codec == "hevc" else (extra[0] >> 1 & 3) + 1

    def starts_afresh(self, packet: bytes) -> bool:
        """Whether no frame from this one on refers to a frame before; False where that is not known."""
        match self.codec:
            case "h264":  # recovery points (intra refresh, open GOPs) are keyframes, too
                return any(packet[at] & 31 == H264_IDR for at, _ in self._units(packet))
            case "hevc":
                kinds = (packet[at] >> 1 & 63 for at, _ in self._units(packet))
                return next((kind in HEVC_IRAP for kind in kinds if kind < 32), False)
            case "vvc":
                kinds = (packet[at + 1] >> 3 for at, end in self._units(packet) if end - at > 1)
                return next((kind in VVC_IDR for kind in kinds if kind < 12), False)
            case "av1":  # a key frame that is shown at once; one that is shown later (forward) has frames between
                headers = (packet[at] for kind, at, end in _av1_units(packet) if kind in AV1_FRAMES and at < end)
                return next(headers, 0) & 0xF0 == 0x10
            case "vp9":
                return _vp9_header(packet[0])[0]
            case "vp8":
                return not packet[0] & 1
            case "mpeg4":
                return _mpeg4_types(packet)[:1] == [0]
            case "mpeg1video" | "mpeg2video":
                return _mpeg2_type(packet) == 1
            case "theora":
                return not packet[0] & 0xC0
            case "ffv1":  # a bit of a range coder at even odds
                return int.from_bytes(packet[:2]) >= 0x7F80
            case "msmpeg4v2" | "msmpeg4v3" | "wmv1":
                return packet[0] >> 6 == 0
            case "wmv2":
                return packet[0] >> 7 == 0
            case "h263":
                plus, full = _bits(packet, 35, 3) == 7, _bits(packet, 38, 3) == 1
                return _bits(packet, 38, 1) == 0 if not plus else _bits(packet, 59 if full else 41, 3) == 0
            case "flv1":
                return _bits(packet, 33 + {0: 16, 1: 32}.get(_bits(packet, 30, 3), 0), 2) == 0
        return self._intra_only

    def frames(self, packet: bytes) -> int:
        """How many frames are shown for this packet, as far as its bits say; 1 if they do not."""
        match self.codec:
            case "vp8":
                return packet[0] >> 4 & 1
            case "vp9":
                return sum(_vp9_header(packet[at])[1] for at in _vp9_frames(packet))
            case "av1":
                # show_existing_frame or show_frame
                return int(
                    any(packet[at] & 0x90 for kind, at, end in _av1_units(packet) if kind in AV1_FRAMES and at < end)
                )
            case "mpeg4":
                types = _mpeg4_types(packet)
                return 0 if types == [1] and len(packet) <= PLACEHOLDER_BYTES else len(types)
        return 1

    def is_bidirectional(self, packet: bytes) -> bool:
        """Whether this frame may be stored after one that is shown later (B); False where the bits do not say."""
        match self.codec:
            case "h264":  # slice_type 1 or 6, behind first_mb_in_slice 0
                slices = (at + 1 for at, end in self._units(packet) if packet[at] & 31 == 1 and end - at > 1)
                return any(packet[at] & 0xF0 == 0xA0 or packet[at] & 0xFC == 0x9C for at in slices)
            case "hevc":  # no other picture refers to it
                kinds = (packet[at] >> 1 & 63 for at, _ in self._units(packet))
                return any(kind < 16 and kind % 2 == 0 for kind in kinds)
            case "mpeg1video" | "mpeg2video":
                return _mpeg2_type(packet) == 3
            case "mpeg4":
                return 2 in _mpeg4_types(packet)
        return False

    def headers(self, packet: bytes) -> bytes:
        """The settings (parameter sets, sequence header) that a packet brings for itself and those after it."""
        match self.codec:
            case "h264":
                return b"".join(packet[at:end] for at, end in self._units(packet) if packet[at] & 31 in H264_SETS)
            case "hevc":
                return b"".join(packet[at:end] for at, end in self._units(packet) if packet[at] >> 1 & 63 in HEVC_SETS)
            case "av1":
                return b"".join(packet[at:end] for kind, at, end in _av1_units(packet) if kind == AV1_SEQUENCE)
            case "mpeg1video" | "mpeg2video":
                sequence = re.search(rb"\x00\x00\x01\xb3.*?(?=\x00\x00\x01[\xb8\x00])", packet, re.DOTALL)
                return sequence[0] if sequence else b""
            case "mpeg4":
                layer = re.search(rb"\x00\x00\x01[\x20-\x2f].*?(?=\x00\x00\x01)", packet, re.DOTALL)
                return layer[0] if layer else b""
        return b""

    def leads_nowhere(self, packet: bytes) -> bool:
        """Whether no other frame refers to this packet's frame, so it may be skipped; False unless H.264."""
        if self.codec != "h264":
            return False
        heads = [packet[at] for at, _ in self._units(packet)]
        return any(head & 31 == 1 for head in heads) and not any(head & 0x60 for head in heads)

    def _units(self, packet: bytes) -> Iterator[tuple[int, int]]:
        """Where each NAL unit starts and ends."""
        if not self._length_bytes:
            starts = [match.end() for match in re.finditer(rb"\x00\x00\x01(?=.)", packet, re.DOTALL)]
            yield from zip(starts, [*(at - 3 for at in starts[1:]), len(packet)], strict=False)
            return
        width, at = self._length_bytes, 0
        while at + width < len(packet):
            start, at = at + width, at + width + int.from_bytes(packet[at : at + width])
            yield start, min(at, len(packet))


def _bits(packet: bytes, start: int, count: int) -> int:
    """The number that these bits are."""
    return int.from_bytes(packet[:16].ljust(16, b"\0")) >> (128 - start - count) & ((1 << count) - 1)


def _mpeg2_type(packet: bytes) -> int | None:
    """Of the first picture: 1 I, 2 P, 3 B."""
    picture = re.search(rb"\x00\x00\x01\x00.(.)", packet, re.DOTALL)
    return picture[1][0] >> 3 & 7 if picture else None


def _mpeg4_types(packet: bytes) -> list[int]:
    """Of each video object plane: 0 I, 1 P, 2 B, 3 sprite."""
    return [plane[0] >> 6 for plane in re.findall(rb"\x00\x00\x01\xb6(.)", packet, re.DOTALL)]


def _vp9_header(head: int) -> tuple[bool, bool]:
    """Whether a frame with this first byte is a key frame, and whether a frame is shown."""
    profile_3 = head & 0x30 == 0x30
    existing, inter, show = (head >> bit & 1 for bit in ((2, 1, 0) if profile_3 else (3, 2, 1)))
    return not existing and not inter, bool(existing or show)


def _vp9_frames(packet: bytes) -> Iterator[int]:
    """Where each frame of a packet starts: of several (a superframe), an index at the end gives the sizes."""
    last, at = packet[-1], 0
    count, width = (last & 7) + 1, (last >> 3 & 3) + 1
    index = len(packet) - count * width - 2
    if last & 0xE0 != 0xC0 or index < 0 or packet[index] != last:
        yield 0
        return
    for number in range(count):
        size = int.from_bytes(packet[index + 1 + number * width :][:width], "little")
        if size and at < index:
            yield at
        at += size


def _av1_units(packet: bytes) -> Iterator[tuple[int, int, int]]:
    """Type of each open bitstream unit (OBU), and where its payload starts and ends."""
    at = 0
    while at < len(packet):
        head = packet[at]
        at += 2 if head & 4 else 1
        size = len(packet) - at
        if head & 2:  # LEB128, of eight bytes at most
            size = 0
            for place, byte in enumerate(packet[at : at + 8]):
                size |= (byte & 127) << 7 * place
                at += 1
                if byte < 128:
                    break
        start, at = at, at + size
        yield head >> 3 & 15, start, min(at, len(packet))
