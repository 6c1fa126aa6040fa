"""Types that all layers share: settings, requests, steps, results and errors.

Nothing here does I/O, except reading and writing the settings and profile files. Messages are frozen dataclasses;
pydantic validates only those two files.
"""
