"""Fine-tuning as jobs: uploaded files, a table of jobs, and the workers that lease them. No torch."""
