"""``python -m opencoro_ipy``"""

import sys

from .cli import main

sys.exit(main())
