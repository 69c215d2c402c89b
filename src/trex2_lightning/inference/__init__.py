"""A trained detector in use: prompts from people, detections for people."""
