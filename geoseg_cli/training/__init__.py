"""Making training data, training networks and writing bundles; nothing of inference needs this package."""
