"""Request bodies: which fields are accepted, with which values.

A field that is not supported is refused by name, unless its value is the one that changes nothing.
"""
