"""From a folder of annotated pictures to a trained detector: what is seen there, chosen for it, trained and shown."""
