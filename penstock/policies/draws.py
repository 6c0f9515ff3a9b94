"""Draws that are functions of a seed and a turn: no dice to carry, and a replay draws the same.

The mixing step is SplitMix64's (Steele, Lea and Flood, OOPSLA 2014).
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15


def distinct(seed: int, turn: int, count: int, faces: int) -> list[int]:
    """Return `count` different numbers of [0, faces), each order equally likely.

    Args:
        seed: names the sequence of turns.
        turn: place in it, from 0.
        count: at most `faces`.
        faces: how many numbers there are.
    """
    left = list(range(faces))
    state = _mix(_mix(seed) + turn)
    return [left.pop(_mix(state + place) % len(left)) for place in range(count)]


def _mix(number: int) -> int:
    bits = (number + 1) * _GAMMA & _MASK
    bits = (bits ^ bits >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    bits = (bits ^ bits >> 27) * 0x94D049BB133111EB & _MASK
    return bits ^ bits >> 31
