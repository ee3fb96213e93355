"""``python -m opencoro_ipy.bench``"""

import sys

from .command import main

sys.exit(main())
