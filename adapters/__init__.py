"""LoRA adapters as release artifacts: manifest, store, registry, rollout to replicas, probes, aliases."""
