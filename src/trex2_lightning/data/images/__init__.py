"""Image files, in folders or packed, and what is done to their pixels."""
