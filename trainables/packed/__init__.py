"""Several adapters over one frozen base: trials whose rows share forward and backward passes."""
