"""Penn Treebank tokenizer, as pycocoevalcap's, without Java.

That is Stanford CoreNLP 3.4.1's PTBTokenizer with -preserveLines -lowerCase, after which pycocoevalcap 1.2 drops
punctuation. What looks odd is the reference's: brackets stay, as -lrb- and -lsb-, because they are lower case
by then; ?? and !? stay; 1 1/2 is one token that holds a no-break space.

Compared with the reference on 202,851 distinct texts (all sentences of YouCook2 and ActivityNet Captions, questions
and answers of six data sets): equal on all but ten, in which the reference reads on into the next caption of its file.
There "triple A." loses its full stop where the next caption begins with The, and "art." keeps it where that begins with
a number; here each text stands for itself. Of 9,000 generated texts of all Unicode blocks, with accents apart from
their letters, emoji, spaces of all kinds and control characters, all but 1 in 1,000 are equal, and of 3,000 random
jumbles of words and punctuation, a fifth of them run together, 997 in 1,000. What differs, and why, is in
docs/results.md.
"""

from __future__ import annotations

import re
from functools import lru_cache

from evalkit.metrics.text.characters import LETTER, MARK, SYMBOL, kind

# Words that keep the full stop that follows; those of the second line only where they begin with a capital, those of
# the third only before a number.
_SHORT = (
    "adm ala alex al apr ariz assn asst attys? aug ave bancorp bhd bldg blvd brig bros calif capt cf cmdr cols? colo "
    "comdr conn corp cos? cpl ct dak dec dept det drs? esq est etc ext feb fla fri ft ga gen govs? hon inc ind intl "
    "jan jr jul jun kans? ky lieut lt ltd maj mar md messrs mich minn mo mon mont mr mrs ms mt neb nev nov oct okla "
    "penn pfc ph plc ppty pres profs? ptes? ptys? pvt rd reps? rev rt sens? sept? sgt spc sq sr ste? supts? sys tel "
    "tenn thu thurs tues? univ va vs vt wed wisc? wyo"
).replace(" ", "|")
_SHORT_NAME = "Ark|Az|Del|Ill|La|Mass|Miss|Ore|Pa|Tex|Wash|ARK|AZ|DEL|ILL|LA|MASS|MISS|ORE|PA|TEX|WASH"
_SHORT_NUMBER = "art|ca|figs?|nos?|op|pp|prop"
_CURRENCY = "[\u0080\u00a2-\u00a4\u20a0\u20ac\u00bc-\u00be\u2153\u2154]"  # and fractions
# After a single letter with a full stop, these begin the next sentence.
_STARTS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once "
    "One Other She Since So Some Such That The Their Then There These They This We What When While Yet You"
).replace(" ", "|")

_QUOTES = "`\u201a\u201e\u201f\u2018\u2019\u201c\u201d\u2039\u203a\u00ab\u00bb"
_SPACE = " \t\u00a0\u2000-\u200a\u3000"
_STOP = r' \t\n\f\r"<>|(){}'  # what no address holds
_DASHES = r"\u0085\u0096\u0097\u058a\u2010\u2011\u2013-\u2015\u2026"
# In patterns, every letter beyond ASCII is LETTER, and so on: `_shapes`.
_BARE = f"[A-Za-z{LETTER}]"  # a letter without accents of its own
_L = f"(?:[A-Za-z{LETTER}{MARK}]|&[aeiouAEIOU](?:acute|grave|uml);)"  # a letter
_LD = f"[A-Za-z0-9{LETTER}]"  # or a digit, without accents of their own
_A = "['\u2019]"  # an apostrophe
_N_T = "n[`\u2018'\u2019][tT]|N[`\u2018'\u2019]T"
_PART = f"(?:[dDoOlL]{_A}{_BARE}{_BARE})?{_LD}+"  # of what hyphens join, such as o'clock
_WORD = rf"{_L}(?:{_L}|[0-9])*"
_END = "(?![A-Za-z0-9])"
_IN_SENTENCE = r"(?:\.(?=[,;:\u3001]))?"  # a full stop that does not end it

# The longest match at a place is the token. Bounds of 200 are of what no address exceeds, for texts without a space.
_TOKENS = [
    re.compile(pattern)
    for pattern in (
        r"</?[A-Za-z][^<>]*>",
        rf"https?://[^{_STOP}]+[^{_STOP}.!?,-]",
        rf"""(?:www\.(?:[^{_STOP}.!?,]+\.)+[A-Za-z]{{2,4}}|(?:[^{_STOP}`'.!?,-_$]{{1,200}}\.)+(?:com|net|org|edu))"""
        rf"(?:/[^{_STOP}]+[^{_STOP}.!?,-])?",
        rf"[A-Za-z0-9][^{_STOP}\u00a0]{{0,200}}@(?:[^{_STOP}.\u00a0]+\.)*[^{_STOP}.\u00a0]+",
        rf"@[A-Za-z_][A-Za-z_0-9]*|#{_L}+",
        r"\d{1,2}[-/]\d{1,2}[-/]\d{2,4}",
        r"(?:\d{1,4}[- \u00a0])?\d{1,4}(?:\\?/|\u2044)\d{1,4}",
        r"(?:\(\d{2,3}\)[ \u00a0]?|(?:\d{2,4}[- \u00a0])?\d{2,4}[- \u00a0])\d{3,4}[- \u00a0]?\d{3,5}",
        r"[-+]?(?:\d*(?:[.:,\u066b\u066c]\d+)+|\d+)",
        rf"{_PART}(?:[-_\u058a\u2010\u2011]{_PART})*{_IN_SENTENCE}",
        rf"[A-Za-z0-9][A-Za-z0-9.,]*(?:-[A-Za-z0-9]+)+{_IN_SENTENCE}",
        r"[A-Z]+(?:[+&][A-Z]+)+",
        r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}",
        rf"{_WORD}(?:[.!?]{_WORD})*{_IN_SENTENCE}",
        rf"[A-Za-z](?:\.[A-Za-z])+{_END}\.?|[Pp][Hh]\.[Dd]\.?|[A-Za-z]\.(?![{_SPACE}]+(?:{_STARTS})(?:[{_SPACE}']|$))",
        rf"(?i:{_SHORT})\.|(?:{_SHORT_NAME})\.|(?i:{_SHORT_NUMBER})\.(?=[{_SPACE}]?\d)",
        rf"(?:{_A}(?i:[msd]|re|ve|ll)|{_N_T})(?![A-Za-z])|\u2019(?i:[msd]|re|ve|ll)",
        rf"{_A}(?:[Ee]m|[Tt]ill?|[Cc]ause|[2-9]0s|\d\d(?=[{_SPACE}]|$))|{_A}[nN]{_A}|'n{_END}|\u2019[nN]|'[tT](?=is|was)",
        rf"[dD]{_A}ye|[lLdDjJ]{_A}|[yY]{_A}(?=[aA][lL][lL])|[oO]l{_A}",
        r"[Cc]'mon|[Dd]unkin'|[Ss]omethin'|[Ll]i'l|[Nn]at'l|[Ee]v'ry",
        rf"[A-HJ-XZn]{_A}{_BARE}{{2,}}|{_BARE}+[aeiouyAEIOUY]{_A}[aeiouA-Z]{_BARE}*|[cC]{_A}est|[oOeE]{_A}er|[nN]e{_A}er",
        rf"[<>]?[:;=][-o*']?[()DPdpO\\{{@|\[\]]{_END}|[-^x=~<>']_[-^x=~<>']|c\+\+|[cCfF]#",
        r"-(?i:[lr][rcs]b)-|[?!]+|\.\.\.|\*+|(?:\\\*)+|_+|#+|-+|@+|<<|>>|''|``|&(?:(?i:amp|lt|gt|quot|apos)|nbsp|mdash|#\d+);",
        "[\u207a\u207b\u208a\u208b]?(?:[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+|[\u2080-\u2089]+)",
        rf"[A-Z]*\$|[{_QUOTES}]{{1,2}}",
        f"[!-~{SYMBOL}{LETTER}{MARK}{_DASHES}\u2044\u207a\u207b\u208a\u208b\u3001]|{_CURRENCY}",
    )
]
# A word before a contraction is a token although others are longer: don't is do n't, and you'll is you 'll.
_CONTRACTED = re.compile(rf"[A-Za-z]*[A-MO-Za-mo-z](?={_N_T})|{_WORD}(?={_A}(?i:[msd]|re|ve|ll)(?![A-Za-z]))")
_CONTRACTION = re.compile(rf"{_A}(?i:[msd]|re|ve|ll)|{_N_T}")
_PLAIN = re.compile(r"[A-Za-z]+(?=[,?!]?(?: |$))")  # most words
_PAIRS = {"cannot": 3, "gonna": 3, "gotta": 3, "lemme": 3, "gimme": 3, "wanna": 3}
_REPLACED = {
    **{"[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-", "&amp;": "&", "&lt;": "<", "&gt;": ">"},
    **{"\u00bc": "1/4", "\u00bd": "1/2", "\u00be": "3/4", "\u2153": "1/3", "\u2154": "2/3"},
    **{"\u00a3": "#", "\u00a2": "cents", **dict.fromkeys("\u0080\u00a4\u20a0\u20ac", "$")},
}
_DROPPED = {
    *"'`.?!,:;\"\u2026\u2013\u2014\u2015\u2010\u2011\u058a\x85\x96\x97",
    *("''", "``", "...", "&quot;", "&apos;", "&nbsp;", "&mdash;"),
}
_CHARACTERS = str.maketrans({"\n": " ", "\u00ad": ""})  # the soft hyphen
_CURLY = str.maketrans({"\u201b": "\u2018", "\x91": "\u2018", "\x92": "\u2019", "\x93": "\u201c", "\x94": "\u201d"})


class _Shapes(dict[int, str]):
    """What a character is in the patterns: itself where one names it, else what stands for its kind."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        self[code] = character if _NAMED.match(character) else kind(character)
        return self[code]


# Beside ASCII.
_NAMED = re.compile(
    rf"[\0-\x7f{_SPACE}{_QUOTES}{_DASHES}\u00b2\u00b3\u00b9\u2044\u066b\u066c\u2070\u2074-\u207b\u2080-\u208b\u3001]"
    f"|{_CURRENCY}"
)
_SHAPES = _Shapes(_CURLY)
_AS_ASCII = str.maketrans(
    {
        **dict.fromkeys("\u2018\u2039", "`"),
        **dict.fromkeys("\u2019\u203a", "'"),
        **dict.fromkeys("\u201c\u00ab", "``"),
        **dict.fromkeys("\u201d\u00bb", "''"),
    }
)


@lru_cache(maxsize=1 << 16)
def tokenized(text: str) -> str:
    """A caption's tokens in lower case, without punctuation, one space between two.

    >>> tokenized("Don't add 1/2 cup of salt; it's (too) salty!")
    "do n't add 1/2 cup of salt it 's -lrb- too -rrb- salty"
    """
    text = text.translate(_CHARACTERS)
    words: list[str] = []
    shapes = text if text.isascii() else text.translate(_SHAPES)
    at = 0
    while at < len(text):
        if text[at] == " ":
            at += 1
            continue
        end = _end(shapes, at)
        words += _normalized(text[at:end]) if end > at else ()
        at = max(end, at + 1)
    return " ".join(words).rstrip()


def _end(shapes: str, at: int) -> int:
    """The end of the token that begins here; the place itself where none does."""
    if match := _PLAIN.match(shapes, at) or _CONTRACTED.match(shapes, at):
        return match.end()
    return max((match.end() for pattern in _TOKENS if (match := pattern.match(shapes, at))), default=at)


def _normalized(token: str) -> list[str]:
    """A token as the reference writes it: none for punctuation, two for contracted words such as cannot."""
    lower = token.lower()
    if at := _PAIRS.get(lower):
        return [lower[:at], lower[at:]]
    curly = token.translate(_CURLY)
    if _CONTRACTION.fullmatch(curly) or not curly.strip(_QUOTES):
        lower = curly.lower().translate(_AS_ASCII)
    if lower in _DROPPED or not token.strip("-"):
        return []
    return [_REPLACED.get(lower) or lower.replace("(", "-lrb-").replace(")", "-rrb-").replace(" ", "\u00a0")]
