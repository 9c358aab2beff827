"""How fast the service is: every number as a ratio to something measured in the same run."""
