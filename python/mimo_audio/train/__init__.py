"""Training loops: each reads top to bottom; `python -m mimo_audio.train.tokenizer --help`."""
