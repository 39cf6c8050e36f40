"""A retrain's way from the gate to live on both clouds' stand-ins, with a model of real size."""
