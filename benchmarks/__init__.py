"""dtr side by side with other registries: `make bench`."""
