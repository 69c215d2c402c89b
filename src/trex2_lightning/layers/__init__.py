"""Neural network modules that know nothing of text, prompts or fusion."""
