"""A model's report: one HTML file without script and without addresses outside it."""
