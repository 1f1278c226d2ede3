"""Curation: what is wrong with a data set, what will be learned from it, and a cleaner one. No torch."""
