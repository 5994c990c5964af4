"""What a person sees of runs, while one goes on and of all there are: only files are read."""
