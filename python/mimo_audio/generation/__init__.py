"""Generation of text and audio patches: samplers, and sessions that keep what they have read."""
