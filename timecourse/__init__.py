"""Time courses of components: which heads and FFNs carry knowledge at each checkpoint of a model's training."""

from importlib.metadata import version

__version__ = version("timecourse")
