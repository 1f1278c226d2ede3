"""What finance reads; read-only over the ledger."""
