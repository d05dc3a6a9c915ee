"""A pytest plug-in of scripts/test: keeps the tests whose id matches FLEXLLM_FILTER (a regex)."""

import os
import re


def pytest_collection_modifyitems(config, items):
    wanted = re.compile(os.environ.get("FLEXLLM_FILTER", ""))
    dropped = [item for item in items if not wanted.search(item.nodeid)]
    items[:] = [item for item in items if wanted.search(item.nodeid)]
    config.hook.pytest_deselected(items=dropped)
