"""`evalkit plan task=NAME ckpt=ENCODER`: estimates the cost of a run from a sample."""

from __future__ import annotations

from evalkit.config.config import Config
from evalkit.pipeline.plan import Plan, plan
from evalkit.results.table import columns
from evalkit.runtime.progress import duration

PARTS = "A part is a video, or a span of one, that is read by itself; examples about the same part share it."


def main(config: Config) -> int:
    """0, after the plan was printed.

    Raises:
        UserError: something that would stop the run, too.
    """
    print(report(plan(config), config))
    return 0


def report(planned: Plan, config: Config) -> str:
    """The plan as text: what is read, what takes how long, and what to do where the store is too small."""
    head = ("", "parts", "clips of each", "stored already", "features", "encoded")
    rows = [head] + [
        (
            r.name,
            f"{r.parts:,}",
            f"{r.clips:,}",
            f"{r.stored:.0%}",
            size(r.bytes),
            "once" if r.times == 1 else f"{r.times} times",
        )
        for r in planned.readings
    ]
    phases = [(name, duration(seconds)) for name, seconds in planned.phases.items()]
    lines = [columns(rows), f"\n{PARTS}", ""]
    if planned.missing:
        counts = ", ".join(f"{count:,} of {name}'s {all_:,}" for name, (count, all_) in planned.missing.items())
        lines += [f"Not counted, as their videos are missing (evalkit check names them): {counts} examples.", ""]
    lines.append(columns([*phases, ("all" if planned.rates else "all of these", duration(planned.seconds))]))
    options = config.options
    where = f"{options.devices * options.nodes} devices" if options.devices * options.nodes > 1 else "this device"
    if planned.rates:
        r = planned.rates
        lines.append(
            f"\nOn {where}, {planned.bound} takes most. Of {r.sample} parts, one decodes in {r.decode_s * 1e3:.3g} ms "
            f"and one clip is encoded in {r.encode_s * 1e3:.3g} ms; both, with the store, take {r.both_s * 1e3:.3g} ms."
        )
    else:
        lines.append(
            "\nEncoding, fitting and predicting cannot be estimated: no video of the sample could be read, or a split "
            "has none."
        )
    lines += advice(planned)
    return "\n".join(lines)


def advice(planned: Plan) -> list[str]:
    """What to do where features do not fit."""
    again = [reading for reading in planned.readings if reading.times > 1]
    if not again:
        return []
    needed = sum(reading.bytes for reading in planned.readings)
    names = " and ".join(reading.name for reading in again)
    mend = "cache=on" if planned.limit is None else f"EVALKIT_CACHE_GB={needed / 1e9:.0f}"
    return [
        f"The features of {names} fit neither in memory ({size(planned.memory)}) nor in the store "
        f"({size(planned.limit or 0)}), so each epoch encodes them again: give {mend}, or store less with "
        "adapter.stored=int8 or a smaller adapter.token_grid, where the adapter has them."
    ]


def size(count: float) -> str:
    """Bytes as MB, GB or TB."""
    for unit, scale in (("TB", 1e12), ("GB", 1e9)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count / 1e6:.3g} MB"
