"""How a call is refused: in one line."""

import pytest

from lab1.engine.config import UsageError
from lab1.engine.network import Unavailable


def refusal(call, *arguments, **options) -> str:
    """The one line with which a call is refused for good: not as a data set that is merely out of reach."""
    with pytest.raises(UsageError) as caught:
        call(*arguments, **options)
    assert not isinstance(caught.value, Unavailable)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def unavailable(call, *arguments, **options) -> str:
    """The one line that says that a data set is out of reach."""
    with pytest.raises(Unavailable) as caught:
        call(*arguments, **options)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)
