"""Hosts the stages and carries the messages between them and the controller.

`start.start_pipeline` is the way in, `base.Pipeline` what comes out.
"""
