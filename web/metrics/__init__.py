"""What is counted: requests, predictions, time, and how inputs differ from the training data. Knows no HTTP."""
