"""Networks with inputs and predictions: classifiers, density models, language models. Imports data and lower layers."""
