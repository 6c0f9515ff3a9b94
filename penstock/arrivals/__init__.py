"""When requests arrive: by a law, or as a trace tells it. Pure: the caller brings the dice."""

from __future__ import annotations

from penstock.arrivals.laws import Constant, Diurnal, Gamma, Law, Mmpp, Poisson, instants_of, law_of
from penstock.arrivals.processes import MOST_REQUESTS, Dice, constant, diurnal, gamma, mmpp, poisson
from penstock.arrivals.replay import Replay, Window, offered_rps, scale, traced_load

__all__ = [
    "MOST_REQUESTS",
    "Constant",
    "Dice",
    "Diurnal",
    "Gamma",
    "Law",
    "Mmpp",
    "Poisson",
    "Replay",
    "Window",
    "constant",
    "diurnal",
    "gamma",
    "instants_of",
    "law_of",
    "mmpp",
    "offered_rps",
    "poisson",
    "scale",
    "traced_load",
]
