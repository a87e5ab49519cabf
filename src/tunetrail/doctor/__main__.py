"""``python -m tunetrail.doctor``, for where ``tunetrail`` itself cannot start."""

import sys

from tunetrail.doctor import main

sys.exit(main(sys.argv[1:]))
