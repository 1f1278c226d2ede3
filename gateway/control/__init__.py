"""What is changed while the gateway runs: teams, keys, policies, privacy rules; and who changed it."""
