"""Where training audio comes from: synthetic speech and recordings, as folders with a manifest."""
