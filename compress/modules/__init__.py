"""What is known of a module and of one batch for it, whatever it is for."""
