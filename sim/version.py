"""The version of moesim, read by the build, by every result and by stores of sweeps."""

__version__ = "0.1.0"
