"""viv1t: digital twins of mouse visual cortex, learned from two-photon recordings of movies."""

__version__ = "0.1.0"
