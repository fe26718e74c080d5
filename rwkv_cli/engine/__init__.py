"""What makes a model run on a machine, and the state it leaves."""
