"""Which language a text is in, as far as its script and its commonest words tell; "" where they do not.

Enough to send whole conversations to a model for their language, and to find the rows that stray from a data
set's; no substitute for a model that tells languages.
"""

import re
import unicodedata
from collections import Counter

WORDS = {
    "en": "the of and to in is for on with that my i you are can what how have it not do was be this",
    "de": "der die das und ist nicht ich mein meine ein eine mit auf für wie kann haben von zu den wird wo",
    "fr": "le la les des est une un je mon ma pas que pour avec dans et vous comment puis du mes sur",
    "es": "el los las es una un mi que por para con en y no cómo puedo qué del está tengo se",
    "it": "il lo gli è una un mio mia che per con non come posso di della sono ho cosa nel",
    "pt": "o os as é uma um meu minha que para com não como posso do da em está tenho eu",
    "nl": "de het een is niet mijn ik van en dat op met hoe kan voor naar heb wat zijn",
}
_BY_WORD: dict[str, list[str]] = {}
for _language, _words in WORDS.items():
    for _word in _words.split():
        _BY_WORD.setdefault(_word, []).append(_language)
_WORD = re.compile(r"[^\W\d_]+")
SCRIPTS = (
    "arabic", "cjk", "cyrillic", "devanagari", "greek", "hangul", "hebrew", "hiragana", "katakana", "thai",
)  # fmt: skip
NAMES = (*WORDS, *SCRIPTS)  # that a policy may ask for
LEAST_WORDS = 2  # of a language, before it is named


def language(text: str) -> str:
    """ISO 639 of the languages above, or the name of a script that is not Latin, such as "cyrillic"."""
    words = _WORD.findall(text.lower())
    script = _script("".join(words))
    if script != "latin":
        return script
    votes = Counter(found for word in words for found in _BY_WORD.get(word, ()))
    ranked = votes.most_common(2)
    if not ranked or ranked[0][1] < LEAST_WORDS or (len(ranked) > 1 and ranked[0][1] == ranked[1][1]):
        return ""
    return ranked[0][0]


def _script(letters: str) -> str:
    """Of most letters, by the first word of their Unicode names; "" without letters."""
    names = Counter(unicodedata.name(letter, "").partition(" ")[0].lower() for letter in letters)
    return names.most_common(1)[0][0] if names else ""
