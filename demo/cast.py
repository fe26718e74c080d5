"""Who and what stories are about: draws a hero, a friend, a thing and a place; knows no plot."""

from __future__ import annotations

import random

# A name always has the same pronoun, so that a very small model can keep them together.
NAMES = {
    "he": ("Tom", "Ben", "Max", "Sam", "Leo", "Finn", "Oscar", "Jack", "Toby", "Hugo"),
    "she": ("Lily", "Mia", "Anna", "Rosie", "Daisy", "Molly", "Ruby", "Lucy", "Emma", "Bella"),
}
PRONOUNS = {"he": ("he", "him", "his"), "she": ("she", "her", "her")}

ANIMALS = (
    "fox", "rabbit", "bear", "cat", "dog", "mouse", "frog", "duck", "owl", "hedgehog",
    "squirrel", "turtle", "bird", "pig", "horse", "sheep", "elephant", "lion", "monkey", "penguin",
)  # fmt: skip
BEINGS = ("dragon", "robot", "girl", "boy")
HERO_KINDS = ANIMALS + BEINGS

HERO_ADJECTIVES = (
    "little", "little", "little", "little", "small", "young", "brave", "clever", "quiet",
)  # fmt: skip
FRIEND_ADJECTIVES = ("little", "small", "young", "friendly", "gentle", "shy", "gray", "brown")
TRAITS = ("kind", "gentle", "curious", "friendly", "cheerful")

# Where the hero lives, and what lies near it.
HOMES = (
    ("in a small house near the forest", "the forest"),
    ("at the edge of the forest", "the forest"),
    ("by the river", "the river"),
    ("in a little house by the river", "the river"),
    ("on a green hill", "the hill"),
    ("at the foot of a hill", "the hill"),
    ("near the sea", "the sea"),
    ("in a white house by the sea", "the sea"),
    ("on a quiet farm", "the farm"),
    ("next to a clear lake", "the lake"),
    ("in a house by the lake", "the lake"),
    ("in a little village", "the market"),
    ("in a big garden", "the garden"),
    ("near an old mill", "the mill"),
    ("in a warm valley", "the bridge"),
)

COLORS = ("red", "blue", "green", "yellow", "golden", "silver", "white")
THINGS = ("ball", "kite", "drum", "bell", "boat", "flute", "doll")


def draw_words(rng: random.Random, kind: str | None = None) -> dict[str, str]:
    """The words of one story, the same from its first sentence to its last.

    Args:
        rng: the source of chance.
        kind: what the hero is; drawn if None.
    """
    hero = kind or rng.choice(HERO_KINDS)
    friend = rng.choice([animal for animal in ANIMALS if animal != hero])
    hero_sex = {"girl": "she", "boy": "he"}.get(hero) or rng.choice(("he", "she"))
    friend_sex = rng.choice(("he", "she"))
    name = rng.choice(NAMES[hero_sex])
    home, near = rng.choice(HOMES)
    color = rng.choice(COLORS)
    words = {
        "kind": hero,
        "name": name,
        "adj": rng.choice(HERO_ADJECTIVES),
        "trait": rng.choice(TRAITS),
        "home": home,
        "near": near,
        "color": color,
        "thing": f"{color} {rng.choice(THINGS)}",
        "fkind": friend,
        "fname": rng.choice([other for other in NAMES[friend_sex] if other != name]),
        "fadj": rng.choice(FRIEND_ADJECTIVES),
    }
    return words | _pronouns("", hero_sex) | _pronouns("f", friend_sex)


def _pronouns(prefix: str, sex: str) -> dict[str, str]:
    subject, object_, possessive = PRONOUNS[sex]
    keys = ("he", "him", "his")
    lower = dict(zip(keys, (subject, object_, possessive), strict=True))
    upper = {key.capitalize(): word.capitalize() for key, word in lower.items()}
    return {prefix + key: word for key, word in (lower | upper).items()}
