"""`python -m ylosia_jax` is the console script `ylosia`."""

import sys

from ylosia_jax.cli import main

sys.exit(main())
