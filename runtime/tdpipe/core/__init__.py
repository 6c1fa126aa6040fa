"""What every layer speaks: settings, requests, steps, results and errors.

Nothing here computes or does I/O beyond reading a settings file; messages are frozen dataclasses,
and pydantic is used for settings alone.
"""
