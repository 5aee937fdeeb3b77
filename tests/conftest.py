import networks
import pytest

import featvis.models


@pytest.fixture(scope="session")
def lite0():
    return featvis.models.load("efficientnet_lite0")


@pytest.fixture(scope="session")
def toy():
    return networks.toy()
