"""What the server decides: who takes part, what they are told, how replies become a model."""
