"""Tools for testing stages, nets and targets: yours as well as the built-in ones."""
