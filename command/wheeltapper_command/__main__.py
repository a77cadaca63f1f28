"""`python -m wheeltapper_command` is `wheeltapper`."""

import sys

from wheeltapper_command.main import main

sys.exit(main())
