"""How the bundled recogniser of names and addresses is trained: generated text only. Run: `make recogniser`."""
