"""`UNSET`: an argument that was not given, where None means something."""

from enum import Enum


class Unset(Enum):
    UNSET = "unset"


UNSET = Unset.UNSET
