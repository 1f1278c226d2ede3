"""`make demo`: the whole loop on real parts, on one machine."""
