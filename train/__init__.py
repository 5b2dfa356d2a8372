"""The network of GCoNet (CVPR 2021), its losses and its checkpoints, in plain PyTorch."""
