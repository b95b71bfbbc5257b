"""The tests that need what only Linux and macOS have, such as signals that another process can be sent."""

import os
import sys

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals or processes")
linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
