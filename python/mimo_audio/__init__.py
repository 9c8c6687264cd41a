"""MiMo-Audio at native speed: models, training, evaluation and command line; the ops are `mimo_audio_native`."""
