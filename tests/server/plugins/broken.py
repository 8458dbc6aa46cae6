"""Cannot be imported."""

raise RuntimeError("KM_TEST_TOKEN is wrong: " + __import__("os").environ.get("KM_TEST_TOKEN", ""))
