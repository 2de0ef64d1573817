"""``python -m compress`` is ``compresskit``."""

import sys

from compress.cli import main

sys.exit(main())
