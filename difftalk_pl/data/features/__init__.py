"""Audio features: kinds by name."""
