"""What keeps one failing backend from taking others, or itself, down: breakers, a retry budget, slots."""
