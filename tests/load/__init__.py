"""Many users of many kinds on one real host, for as long as is wanted: `python -m tests.load SECONDS`."""
