"""Labels, labeled features, arrays on disk, files, seeds, and devices."""
