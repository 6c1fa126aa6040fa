"""Words for the demo tasks.

Common words make the prompts realistic. Made-up words prevent the model from learning a fixed list, so it
copies letter by letter and works on words it has never seen.
"""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

COMMON_WORDS: tuple[str, ...] = tuple(
    """
    able air alarm almond anchor angle animal apple april arrow autumn baby bag bakery balance
    ball banana bank barn basket beach bean bear beauty bed bell bench berry bicycle bird
    biscuit black blanket blue board boat body book bottle bowl box branch brave bread breeze
    brick bridge bright brother brown brush bubble bucket build bus butter button cabin cable
    cake calm camera candle canyon captain car carpet carrot castle cat chair chalk cheese
    cherry chess child circle city clay clean clock cloud clover coat coffee coin cold color
    comet cook copper corn cotton country cousin cover cow crystal cup curtain dance day deer
    desert desk diamond dinner doctor dog dolphin door dragon drawing dream dress drink drum
    duck dust eagle early earth east echo egg eight elephant engine evening eye face fairy
    falcon family farm father feather fence fern field finger fire fish flag flame flower flute
    forest fork fountain fox friend frog fruit garden gate ghost giant ginger girl glass globe
    glove goat gold goose grape grass gravel green guitar hammer hand harbor hat hazel heart
    hedge hello hill honey horse hospital hotel house ice idea ink insect iron island ivory
    jacket jar jelly jewel journey judge juice jungle kettle key king kitchen kite kitten knife
    ladder lake lamp language lantern laptop leaf leather lemon letter library light lily lion
    lizard lock lunch machine magic magnet mango maple marble market meadow medal melon mercury
    metal milk mirror model money monkey moon morning moss mother mountain mouse museum music
    nail needle nest night north nurse oak ocean office olive onion orange orchid owl page paint
    palace paper parrot party peach pear pearl pebble pencil people pepper piano picture pillow
    pilot pipeline planet plant plate plum pocket poem police pony potato powder prairie pumpkin
    puzzle python queen question quiet quilt rabbit radio rain rainbow river road robin rocket
    roof room rope rose sail salad salt sand school science sea season seed shadow sheep shell
    ship shirt shoe silk silver sister sky sleep smile snow soap sock sofa soldier song soup
    south space spice spider spoon spring square stage star station stone storm story stove
    straw street string sugar summer sun swan sweet swing table tea teacher temple tent thunder
    ticket tiger time tomato tool tooth tower town toy train tree triangle trumpet tulip tunnel
    turtle umbrella uncle valley vanilla velvet village violin voice wagon wall walnut watch
    water wave weather west whale wheat wheel whistle white willow wind window winter wolf wood
    wool word world yellow yesterday young zebra zero
    """.split()  # noqa: SIM905 - a list would take one line per word
)

_ALPHABET = "abcdefghijklmnopqrstuvwxyz"
_VOWELS = "aeiou"
_CONSONANTS = "bcdfghjklmnpqrstvwxyz"
_KEYS_PER_HELD_OUT_KEY = 10


def is_held_out(key: str) -> bool:
    """Whether a word or another key of a question belongs to the held-out tenth.

    The result depends on the key alone, so no seed can put a held-out key into training.
    """
    return zlib.crc32(key.lower().encode()) % _KEYS_PER_HELD_OUT_KEY == 0


def draw_word(rng: Random, *, max_letters: int = 12) -> str:
    """Draw a common or a made-up word of 2 to `max_letters` letters, sometimes capitalised."""
    kind = rng.random()
    if kind < 0.35:
        word = rng.choice(COMMON_WORDS)[:max_letters]
    elif kind < 0.7:
        word = _pronounceable_word(rng, rng.randint(2, max_letters))
    else:
        word = "".join(rng.choices(_ALPHABET, k=rng.randint(2, max_letters)))
    return word.capitalize() if rng.random() < 0.08 else word


def _pronounceable_word(rng: Random, length: int) -> str:
    letters = [rng.choice(_CONSONANTS), rng.choice(_VOWELS)]
    rng.shuffle(letters)
    while len(letters) < length:
        after_vowel = letters[-1] in _VOWELS
        kind = _CONSONANTS if after_vowel == (rng.random() < 0.85) else _VOWELS
        repeat = rng.random() < 0.08 and letters[-1] != letters[-2]
        letters.append(letters[-1] if repeat else rng.choice(kind))
    return "".join(letters[:length])
