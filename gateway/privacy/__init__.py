"""Detect, classify, and the one door out."""
