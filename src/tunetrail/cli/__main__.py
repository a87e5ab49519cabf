"""``python -m tunetrail.cli``, for where the installed command is not on the path."""

import sys

from tunetrail.cli import main

sys.exit(main())
