"""A run of scenarios and each scenario's life: collected, prepared, taken step by step, cleaned up, and reported."""
