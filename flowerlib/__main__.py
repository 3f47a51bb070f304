"""``python -m flowerlib``."""

import sys

from flowerlib.cli import main

sys.exit(main())
