"""From a PyTorch checkpoint to ONNX graphs and, with `build_engine.py`, to verified bundles."""
