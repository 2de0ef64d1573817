"""Teachers, losses and the objective that they make."""
