"""How the stages are put together: the one definition of the DAG, and the doors that are written from it."""
