"""``python -m tinysrgan.gradcheck``."""

import sys

from tinysrgan.gradcheck import main

sys.exit(main(sys.argv[1:]))
