"""What Dagster loads of this deployment: the launcher, the storage, the clean-up of old runs."""
