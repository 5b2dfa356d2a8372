"""From ONNX graphs to engines: one file per target, behind the registry in `gconet.engines.registry`."""
