"""The process on a machine that hosts stages: it joins the controller's Ray, and answers health probes.

`worker.Worker` is the entry point. The stages themselves are processes that Ray starts when the controller asks.
"""
