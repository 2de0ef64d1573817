"""Pure functions on torch modules and arrays; they know nothing of stages, recipes or YAML."""
