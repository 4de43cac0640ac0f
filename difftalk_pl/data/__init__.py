"""Raw videos to prepared clips, and prepared clips to windows. Knows nothing of models, stages or commands."""
