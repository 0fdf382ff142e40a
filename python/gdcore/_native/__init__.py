"""Problems that native code runs: what runs them, few rows in place of many, stable rates."""
