"""One file per endpoint: what a client says, what of it the model is asked, and how the answer is written."""
