"""Request bodies: the accepted fields and their values.

A field that is not supported is refused by name, unless it has the value that changes nothing.
"""
