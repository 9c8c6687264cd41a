"""`python -m mimo_audio` is the command line `mimo-audio`."""

import sys

from mimo_audio.cli import main

sys.exit(main())
