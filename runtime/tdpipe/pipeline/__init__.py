"""Hosts the stages and carries the messages between them and the controller.

`start.start_pipeline` is the entry point and returns a `base.Pipeline`.
"""
