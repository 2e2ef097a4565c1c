"""What Dagster loads of this deployment: the launcher, the limits of one run, the storage, the clean-up of old runs."""
