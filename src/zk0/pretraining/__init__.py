"""How the embedded base policy was made: `python -m zk0.pretraining`."""
