"""``python -m llmpatch`` is ``llmpatch``."""

import sys

from llmpatch._cli.main import main

sys.exit(main())
