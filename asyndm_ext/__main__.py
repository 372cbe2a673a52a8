"""``python -m asyndm_ext "a shark riding a bike"``: the ``asyndm`` command without its script."""

from __future__ import annotations

import sys

from asyndm_ext.commands.main import main

if __name__ == "__main__":
    sys.exit(main())
