"""The tests that need what only Linux and macOS have, such as signals that another process can be sent."""

import os

import pytest

posix = pytest.mark.skipif(os.name != "posix", reason="needs POSIX signals or processes")
