"""What Dagster loads here: the launcher, the limits of one run, the storage, the clean-up, Dagit's guard."""
