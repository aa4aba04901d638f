"""What crash tests share: the lakes of undisturbed runs, made once for all of them."""

import pytest

from tests.crash.lakes import Lakes, make_lakes


@pytest.fixture(scope="session")
def lakes(made_once) -> Lakes:
    """See Lakes. Copy before changing."""
    return Lakes(made_once("crash", make_lakes))
