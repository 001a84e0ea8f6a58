"""How weight files come to a machine, and under which terms."""
