"""Everyday words for RULER's keys and word lists, none a part of another, and distinct names made of them."""

from __future__ import annotations

import random
from collections.abc import Iterator

ADJECTIVES: tuple[str, ...] = tuple(
    """
    active amber ancient angry apt avid awake basic blunt bold brave brisk broad bronze busy calm careful
    cheap cheerful civil classic clever cloudy coarse cosy crimson crisp curious dapper daring deep dense
    distant dizzy dry dusty eager elegant equal exact faint fancy fertile festive fierce firm fluffy fond
    fragile frank fresh frosty frugal fuzzy gentle giddy glad glossy golden graceful grand grateful handy
    happy hardy hasty hollow honest huge humble hungry jolly jumbo keen kind large lavish lazy lively lofty
    loyal lucid lunar lush magic mellow mighty mild misty modest mute narrow neat nimble noble noisy oblong
    odd ornate pale patient perky placid plain polite proud pure quaint quick quiet rapid rare ready robust
    rough round royal rugged rural rustic salty scarlet serene sharp shiny shy silent silky simple sleepy
    slim smooth snug sober solar solemn solid sour spare spicy stable steady steep stern stiff stout strict
    sturdy subtle sunny supple swift tame tart tender thick tidy timid tiny tough tranquil upbeat urban
    vague valid vast velvet vivid warm wary weary wide wild wise witty young zesty
    """.split()
)
NOUNS: tuple[str, ...] = tuple(
    """
    acorn almond anchor apple apron archer atlas attic badge bakery balcony bamboo banner barrel basin
    basket beacon beaver bench bicycle biscuit blanket blossom bottle bracelet branch bridge bronco brook
    broom bucket buffalo bugle button cabin cabbage cactus camel camera candle canoe canyon carpet carrot
    castle cavern cedar cellar cello chapel cherry chimney cinema circus clarinet clock cobbler comet
    compass copper coral cottage cradle crater cricket crystal cupboard curtain cushion cymbal daisy dolphin
    domino donkey dragon drawer dungeon eagle elbow ember emerald engine envelope falcon farmer feather
    fender fiddle fisher flannel flute forest fossil fountain galaxy gallery garden garlic gazelle geyser
    ginger giraffe glacier goblet gondola gorilla granite grape guitar gutter hammer hammock harbour harvest
    hazel hedge helmet heron hinge hippo honey horizon iceberg igloo island jacket jaguar jasmine jersey
    jigsaw juniper kennel kettle kitchen kite kitten ladder lagoon lantern lemon lentil library lizard
    lobster locket lumber magnet magpie mango mantle maple marble market meadow melon mirror mitten monkey
    mosaic muffin museum napkin nectar needle nephew notebook nutmeg oboe ocean olive onion orchard orchid
    otter oven oyster paddle palace panther parcel parrot parsley pebble pelican pencil pepper piano pickle
    pigeon pillow pilot planet plaza plum pocket poem pony poplar potato prairie pretzel puddle pumpkin
    puppet puzzle pyramid quarry quilt rabbit radish raft rainbow raisin raven ribbon riddle river robin
    rocket rooster ruby sailor salmon sandal satchel saucer scarf school scooter seal shovel shrimp silver
    skillet sleigh slipper snail spanner sparrow spider spinach sponge squirrel stadium statue stove string
    summit swan tailor tambourine tavern teapot temple thimble thistle thunder ticket tiger timber toffee
    tomato torch trumpet tulip tunnel turnip turtle umbrella unicorn vanilla vessel village vineyard violet
    violin volcano waffle waggon walnut walrus wardrobe weasel whistle willow window wizard yacht yarrow
    zebra
    """.split()
)


def names(rng: random.Random, parts: int) -> Iterator[str]:
    """Distinct names in random order: single words, or with two and three parts ones like `calm-otter`.

    Raises `ValueError` after the last of them.
    """
    pools = _pools(parts)
    seen: set[str] = set()
    for _ in range(_size(parts)):
        name = "-".join(rng.choice(pool) for pool in pools)
        while name in seen:
            name = "-".join(rng.choice(pool) for pool in pools)
        seen.add(name)
        yield name
    raise ValueError(f"there are no more than {_size(parts)} different names")


def parts_for(needed: int, least: int = 1) -> int:
    """The fewest parts (at least `least`, at most 3) of which there are `needed` different names."""
    return next((parts for parts in range(least, 3) if _size(parts) >= needed), 3)


def _pools(parts: int) -> tuple[tuple[str, ...], ...]:
    return ((*ADJECTIVES, *NOUNS),) if parts == 1 else (*[ADJECTIVES] * (parts - 1), NOUNS)


def _size(parts: int) -> int:
    size = 1
    for pool in _pools(parts):
        size *= len(pool)
    return size
