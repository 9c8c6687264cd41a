"""A small world to train and measure a small model on: `mimo-audio data world`, deterministic from a seed.

texts.py        what is said; questions.py: what is asked, thought and answered
descriptions.py what a recording sounds like, in words, from measurements
plan.py         samples of every task, whose sounds are clips yet to be rendered
build.py        renders them and writes the manifests
"""
