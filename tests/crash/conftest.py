"""What crash tests share: the lakes of undisturbed runs, made once for all of them."""

from functools import partial

import pytest

from tests.crash.lakes import Lakes, make_lakes


@pytest.fixture(scope="session")
def lakes(made_once) -> Lakes:
    """Those of the scenario `first`. Copy before changing."""
    return Lakes(made_once("crash-first", partial(make_lakes, scenarios=["first"])))


@pytest.fixture(scope="session")
def all_lakes(made_once) -> Lakes:
    """Those of both scenarios. Copy before changing."""
    return Lakes(made_once("crash-all", make_lakes))
