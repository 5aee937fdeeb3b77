"""The same atlas by a Ray cluster, of which a node is lost; skipped where there is no Ray."""

from __future__ import annotations

import os
import time
import warnings

import networks
import numpy as np
import pytest

import featvis as fv
from featvis.errors import InputError

ray = pytest.importorskip("ray")

# Ray starts processes from one of many threads, and leaves files to the collector.
pytestmark = [
    pytest.mark.usefixtures("quick_to_compile"),
    pytest.mark.filterwarnings("ignore"),
]

OPTIONS = {
    "size": networks.TOY_SIZE,
    "steps": 4,
    "batch": 2,
    "seeds": 4,
    "parameterization": "pixels",
    "transform": "none",
    "progress": False,
}


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    """Two nodes of one core each."""
    from ray.cluster_utils import Cluster

    before = dict(os.environ)
    # Workers wait behind everything else of a busy machine.
    os.environ.update({"RAY_worker_niceness": "0"})
    root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    os.environ["PYTHONPATH"] = os.pathsep.join([root, os.environ.get("PYTHONPATH", "")])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = Cluster(True, head_node_args={"num_cpus": 1, "include_dashboard": False})
        yield found
        ray.shutdown()
        found.shutdown()
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.thorough
def test_a_lost_node_changes_nothing(cluster, tmp_path):
    """A node is killed while its worker has batches: the store is that of this process."""
    toy = networks.toy()
    other = cluster.add_node(num_cpus=1)
    local = fv.atlas(toy, "relu", tmp_path / "local", **OPTIONS)
    said = []

    def lose(done, total):
        said.append((done, total))
        if len(said) == 1:
            # Both workers are there, one on each node, before the next batches are given out.
            last = time.monotonic() + 300
            while not any(_alive_on(other)) and time.monotonic() < last:
                time.sleep(0.1)
        if len(said) == 4:
            assert any(_alive_on(other))
            cluster.remove_node(other, allow_graceful=False)

    options = {**OPTIONS, "progress": lose}
    with_ray = fv.atlas(
        toy, "relu", tmp_path / "ray", engine="ray", address=cluster.address, **options
    )
    assert said[-1] == (24, 24)
    assert with_ray.verify() == []
    assert sum(map(len, with_ray.store.batches)) == 24  # nothing twice
    for one, unit in zip(local, with_ray, strict=True):
        for picture, again in zip(one.pictures, unit.pictures, strict=True):
            assert np.abs(picture.image.astype(int) - again.image).max() <= 1
            np.testing.assert_allclose(picture.clean_score, again.clean_score, rtol=1e-5)


def _alive_on(node):
    for actor in ray._private.state.actors().values():
        yield actor["State"] == "ALIVE" and actor["Address"]["NodeID"] == node.node_id


def test_no_cluster_is_one_line(cluster, tmp_path):
    ray.shutdown()
    with pytest.raises(InputError, match=r"no Ray cluster at 127\.0\.0\.1:1: `ray start --head`"):
        fv.atlas(
            networks.toy(), "relu", tmp_path / "none", engine="ray", address="127.0.0.1:1",
            **OPTIONS,
        )  # fmt: skip
