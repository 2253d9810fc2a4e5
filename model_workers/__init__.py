"""The services that host model versions, over the Open Inference Protocol v2."""
