"""Training: `mimo-audio train`; the loop is in tokenizer.py, what a step does in stage1.py and stage2.py."""
