"""A run of scenarios: collects, prepares, executes, cleans up and reports them."""
