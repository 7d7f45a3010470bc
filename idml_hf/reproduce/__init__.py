"""The paper's tables: what each row is, runs of every row and seed, and the report beside the paper's numbers."""
