"""Delta tables on real object stores."""
