"""What every step stands on: labels, labeled features, files, seeds, devices."""
