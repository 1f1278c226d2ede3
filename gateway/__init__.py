"""The service: hot path, admin API, backends, privacy, ledger, finance, monitoring. Never loads torch."""
