"""Hostile values, and mutations of texts, bytes and JSON; all from a seeded random.Random."""

import json
from random import Random
from typing import Any

NUMBERS = [
    *("0", "-1", "1", "2", "007", "1e3", "1e-300", "1e300", "1e999", "-1e300", "nan", "NaN", "inf", "-inf", "Infinity"),
    *("0.5", "1_000", "0x10", "+5", "٣", "9" * 25, "9" * 400, "9" * 5000, "1" + "0" * 18, "-9223372036854775809"),
]
TEXTS = [
    *(
        "",
        " ",
        "a",
        "none",
        "null",
        "true",
        "false",
        "[]",
        "[1,2]",
        "(1,2)",
        "[",
        "{}",
        "{a: 1}",
        "a,b",
        ",",
        "='",
        '"',
    ),
    *("${x}", "${oc.env:HOME}", "\\${", "*a", "&a", "!!python/object/apply:os.system ['x']", "- a", "# a", ":", "a: b"),
    *("~nobody", "/dev/null", "/dev/zero", "/proc/self/mem", "/no/where", "a" * 300, "x" * 100_000),
    *("\x00", "a\x00b", "\x01", "\x1b[2J", "\n", "a\nb", "\r", "\t", "\x85", "\u2028", "\u200b", "\ufeff", "\x7f"),
    *("\udcff", "/d/\udcff", "\ud800", "é", "e\u0301", "\U0001f600", "视频", "-", "--", "--help", "%s", "{0}", "<b>"),
]
VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2**31, 2**63, 10**25, 10**400, 1.5, -1e300, 5e-324, float("nan"), float("inf")),
    *("", "a", "\ud800", "\x00", "1", "nan", [], {}, [[]], [None], {"": None}, ["a", 1, None], {"a": {"b": []}}),
]


def text(random: Random) -> str:
    """A word's value: a number, a text, or pieces of both."""
    pools = (NUMBERS, TEXTS, NUMBERS + TEXTS)
    return "".join(random.choice(random.choice(pools)) for _ in range(random.choice((1, 1, 1, 2, 3))))


def nested(random: Random) -> Any:
    """A value of JSON, at times a very deep one."""
    if random.random() < 0.9:
        return random.choice(VALUES)
    value: Any = 1
    for _ in range(random.choice((50, 900))):
        value = [value] if random.random() < 0.5 else {"a": value}
    return value


def mutated_json(value: Any, random: Random) -> Any:
    """The value with one node at any depth replaced, taken out, doubled, renamed or exchanged with another."""
    if isinstance(value, list) and value and random.random() > 0.15:
        return _mutated_list(list(value), random)
    if isinstance(value, dict) and value and random.random() > 0.15:
        return _mutated_dict(dict(value), random)
    return nested(random)


def _mutated_list(values: list[Any], random: Random) -> list[Any]:
    place = random.randrange(len(values))
    match random.randrange(6):
        case 0:
            del values[place]
        case 1:
            values.insert(place, values[place])
        case 2:
            random.shuffle(values)
        case _:
            values[place] = mutated_json(values[place], random)
    return values


def _mutated_dict(values: dict[str, Any], random: Random) -> dict[str, Any]:
    key = random.choice(list(values))
    match random.randrange(6):
        case 0:
            del values[key]
        case 1:
            values[random.choice(TEXTS)[:50]] = values.pop(key)
        case 2:
            values[key] = values[random.choice(list(values))]
        case _:
            values[key] = mutated_json(values[key], random)
    return values


def mutated(content: bytes, random: Random) -> bytes:
    """Bytes with bits flipped, a part cut, doubled or replaced; of text also lines and cells; of JSON also values."""
    lines = content.split(b"\n")
    match random.randrange(10):
        case 0:
            return content[: random.randrange(len(content) + 1)]
        case 1:
            flipped = bytearray(content)
            for _ in range(random.randrange(1, 9)):
                if flipped:
                    flipped[random.randrange(len(flipped))] ^= 1 << random.randrange(8)
            return bytes(flipped)
        case 2:
            place = random.randrange(len(content) + 1)
            return content[:place] + text(random).encode("utf-8", "surrogatepass") + content[place:]
        case 3:
            del lines[random.randrange(len(lines))]
            return b"\n".join(lines)
        case 4:
            lines.insert(random.randrange(len(lines)), random.choice(lines))
            return b"\n".join(lines)
        case 5:
            place = random.randrange(len(lines))
            mark = random.choice((b",", b" ", b"\t", b":", b'"', b";"))
            cells = lines[place].split(mark)
            cells[random.randrange(len(cells))] = text(random).encode("utf-8", "surrogatepass")
            lines[place] = mark.join(cells)
            return b"\n".join(lines)
        case _:
            return _mutated_values(content, lines, random)


def _mutated_values(content: bytes, lines: list[bytes], random: Random) -> bytes:
    try:
        return json.dumps(mutated_json(json.loads(content), random)).encode()
    except (ValueError, RecursionError):
        pass
    place = random.randrange(len(lines))
    try:
        lines[place] = json.dumps(mutated_json(json.loads(lines[place]), random)).encode()
    except (ValueError, RecursionError):
        lines[place] = text(random).encode("utf-8", "surrogatepass")
    return b"\n".join(lines)
