"""Load and what becomes of it: traces of arrivals, their replay over HTTP, and the figures that say how it went."""
