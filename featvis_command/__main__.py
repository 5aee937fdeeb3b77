"""`python -m featvis_command`, as `featvis`."""

import sys

from featvis_command import main

sys.exit(main())
