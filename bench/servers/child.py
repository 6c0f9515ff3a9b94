"""Runs a command in this process's place, to end when its parent does, however that ends.

Used as ``python -m bench.servers.child PARENT COMMAND …``.
"""

from __future__ import annotations

import os
import sys

from launcher.child import end_with_parent

if __name__ == "__main__":
    end_with_parent(int(sys.argv[1]))
    os.execvp(sys.argv[2], sys.argv[2:])
