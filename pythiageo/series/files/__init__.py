"""Weight files: listing, reading, fingerprints, loading and saving."""
