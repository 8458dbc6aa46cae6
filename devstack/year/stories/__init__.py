"""The customers of the year, with the bills that were reckoned for them by hand."""

from devstack.year.model import Story
from devstack.year.stories import abroad, agreed, changing, disputed, edges, growing, moved, reduced

# Lou comes first: the founding offer is for whoever is the first
STORIES: tuple[Story, ...] = (
    *reduced.STORIES,
    *growing.STORIES,
    *changing.STORIES,
    *moved.STORIES,
    *agreed.STORIES,
    *disputed.STORIES,
    *edges.STORIES,
    *abroad.STORIES,
)
