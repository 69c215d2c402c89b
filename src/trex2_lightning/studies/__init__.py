"""What was measured for the documents: the demo, the ablations, the speed; nothing but `commands` imports it."""
