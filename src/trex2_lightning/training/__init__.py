"""From a configuration to a trained checkpoint."""
