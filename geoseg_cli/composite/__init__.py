"""Many maps of one grid become one: the most frequent class of every pixel, and how often it was seen clearly.

files     open_all: which files are maps, which plainly are none, which cannot be used
fit       refuse_other_grid: maps must have the same pixels
find      find_maps: in which order, with which masks and weights; they must fit each other
votes     Votes: what every pixel was seen as so far; order does not matter
run       compose: windows of all maps in turn, memory that does not grow with maps or height
"""

from __future__ import annotations
