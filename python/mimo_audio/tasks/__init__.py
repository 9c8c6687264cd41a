"""Every task for a person: `MimoAudio`, its options and results."""
