"""Folders in the layout of the released checkpoints: config.json and safetensors, read and written."""
