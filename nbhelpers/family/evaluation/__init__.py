"""What measures the other systems: the family's table, its costs, and attribute binding."""
