"""The Kubernetes side of tdpipe: it will reconcile `TDPipeDeployment` resources into pipelines.

A package of its own, so that the operator's image carries neither torch nor Ray. It may import
`tdpipe.core.settings`, the schema that both sides validate, and nothing else of the runtime.
"""
