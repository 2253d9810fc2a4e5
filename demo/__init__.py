"""The main job on one machine: real data, two model versions, real Redis, workers, gateway, traffic, drift."""
