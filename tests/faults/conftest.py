from tests.plugins.conftest import project, start_worker, worker

__all__ = ["project", "start_worker", "worker"]
