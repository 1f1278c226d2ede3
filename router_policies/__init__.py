"""Pure routing decisions: schema, compile, decide, verify. No I/O, no clock, no randomness of its own."""
