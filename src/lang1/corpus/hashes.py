"""Stable hashes: names for notes and patients that hold no text, and draws that do not depend on row order."""

import hashlib


def hash_id(value: str) -> str:
    """32 hex digits of SHA-256: the name of a note's cleaned text, or of a patient, in a corpus manifest."""
    return hashlib.sha256(value.encode("utf-8")).hexdigest()[:32]


def hash_fraction(seed: int, value: str) -> float:
    """A number in [0, 1) fixed by seed and value: adding a patient moves no other."""
    digest = hashlib.sha256(f"{seed}:{value}".encode()).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def fold_cuts(ratio: tuple[float, float, float]) -> tuple[float, float]:
    """Where train ends and where val ends on [0, 1)."""
    train, val, test = ratio
    return train / (train + val + test), (train + val) / (train + val + test)


def patient_fold(seed: int, patient_id: str, ratio: tuple[float, float, float] = (8, 1, 1)) -> str:
    """train, val or test, 8:1:1 (5.2.2): the one assignment of a patient that every task and corpus shares.

    tasks/sql/splits.sql computes the same.
    """
    fraction = hash_fraction(seed, patient_id)
    train_end, val_end = fold_cuts(ratio)
    return "train" if fraction < train_end else "val" if fraction < val_end else "test"


def hash_number(value: str) -> int:
    """64 bits of SHA-256, to count and look up ids in numpy: two of 12 million are the same once in 250,000 times."""
    return int.from_bytes(hashlib.sha256(value.encode("utf-8")).digest()[:8], "big")
