"""Notes of a few words, for tests of scoring."""

import random

WORDS = "the patient was seen for chest pain denies fever no known allergies takes aspirin daily . , 84 98.6"


def notes(count: int, seed: int = 0, longest: int = 70) -> list[str]:
    """Notes of random length."""
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS.split(), k=rng.randint(4, longest))) for _ in range(count)]
