"""From source pairs to a dataset of accepted counterfactual sets."""
