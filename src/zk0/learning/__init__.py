"""What a node does with a policy and data; plain PyTorch and lerobot, no Flower."""
