import subprocess
import sys

from devstack import ports

GIVE_ONE_AWAY = """
from devstack import ports
ports.LOWEST, ports.HIGHEST = {lowest}, {highest}
print(ports.free_port(), flush=True)
input()
"""


class TestFreePort:
    def test_is_not_given_by_two_processes_though_nobody_listens_yet(self, monkeypatch):
        lowest = ports.free_port()
        monkeypatch.setattr(ports, "_handed_out", set())
        monkeypatch.setattr(ports, "LOWEST", lowest)
        monkeypatch.setattr(ports, "HIGHEST", lowest + 20)
        program = GIVE_ONE_AWAY.format(lowest=lowest, highest=lowest + 20)
        with subprocess.Popen(
            [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        ) as other:
            theirs = int(other.stdout.readline())
            assert theirs != lowest
            assert theirs not in {ports.free_port() for _ in range(3)}
            assert ports.preferred_port(theirs) != theirs
            other.communicate("\n")
        assert ports.preferred_port(theirs) == theirs
